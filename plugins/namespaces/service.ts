/** containerd.services.namespaces.v1.Namespaces: parse → store → convert. */
import type { NamespacesDefinition } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import type { Service } from 'troupe/plugin';
import { parseFieldMask } from '../lib/fieldmask/fieldmask.ts';
import { absent, field, labelField, parseFilters } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, type Labels, setLabel, validateLabel, validateLabels } from '../lib/label/label.ts';
import { validateNamespace } from '../lib/namespace/namespace.ts';
import { created, deleted, toMessage, updated } from './convert.ts';
import type { Namespace, NamespaceStore } from './store.ts';

export function namespacesService(store: NamespaceStore): Service<typeof NamespacesDefinition> {
  return {
    // Never NotFound: engines ask for a namespace's defaults before anything is in it.
    get: ({ name }) => ({ namespace: toMessage(store.get(name) ?? { name, labels: {} }) }),

    list({ filter }) {
      const matches = parseFilters(filter === '' ? [] : [filter]);
      return {
        namespaces: store
          .list()
          .filter((one) => matches((path) => look(one, path)))
          .map(toMessage),
      };
    },

    async create({ namespace }) {
      const name = namespace?.name ?? '';
      validateNamespace(name);
      validateLabels(namespace?.labels ?? {}, 'namespace.Labels');
      const made = { name, labels: copyLabels(namespace?.labels ?? {}) };
      await store.create(made, created(made));
      return { namespace: toMessage(made) };
    },

    async update({ namespace, updateMask }) {
      const name = namespace?.name ?? '';
      validateNamespace(name);
      const change = labelChange(name, namespace?.labels ?? {}, updateMask);
      // The event tells what was asked for, as containerd's does.
      return { namespace: toMessage(await store.update(name, change, updated(name, namespace?.labels ?? {}))) };
    },

    async delete({ name }) {
      validateNamespace(name);
      await store.delete(name, deleted(name));
      return {};
    },
  };
}

/** Without a mask the labels given replace all; with one, those that it names are set or, when absent or empty, deleted. */
function labelChange(name: string, given: Labels, paths: string[] | undefined): (labels: Labels) => Labels {
  const masks = parseFieldMask(paths, { fields: [], maps: ['labels'], what: `namespace ${quote(name)}` });
  if (masks.length === 0) {
    validateLabels(given, 'namespace.Labels');
    return () => copyLabels(given);
  }
  const changes: { key: string; value: string }[] = [];
  for (const { key = '' } of masks) changes.push({ key, value: Object.hasOwn(given, key) ? given[key]! : '' });
  for (const { key, value } of changes) validateLabel(key, value, 'namespace.Labels');
  return (labels) => {
    const result = { ...labels };
    for (const { key, value } of changes) setLabel(result, key, value);
    return result;
  };
}

function look({ name, labels }: Namespace, fieldpath: readonly string[]) {
  if (fieldpath[0] === 'name') return field(name);
  return fieldpath[0] === 'labels' ? labelField(labels, fieldpath) : absent;
}
