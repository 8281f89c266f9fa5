/** containerd.services.containers.v1.Containers */
import { setImmediate as turn } from 'node:timers/promises';
import { type Call, failpoint, type Service } from 'troupe/plugin';
import type {
  Container as ContainerMessage,
  ContainersDefinition,
} from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { type MaskPath, parseFieldMask } from '../lib/fieldmask/fieldmask.ts';
import { parseFilters } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, mergeLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { adaptor, during, fromMessage, invalid, toMessage, validate } from './convert.ts';
import type { Container, Store } from './store.ts';

/** Records per read; between two reads others have their turn. */
const pageSize = 200;

export function containersService(store: Store): Service<typeof ContainersDefinition> {
  /** What matches, a page of records at a time. */
  async function* find(filters: readonly string[], call: Call): AsyncGenerator<ContainerMessage[]> {
    const namespace = requireNamespace(call);
    const matches = parseFilters(filters);
    for (let after = ''; ; ) {
      const page = store.page(namespace, after, pageSize);
      yield page.filter((container) => matches(adaptor(container))).map(toMessage);
      if (page.length < pageSize) return;
      after = page.at(-1)!.id;
      await turn();
      call.signal.throwIfAborted();
    }
  }

  return {
    get({ id }, call) {
      return { container: toMessage(store.get(requireNamespace(call), id)) };
    },

    async list({ filters }, call) {
      const containers: ContainerMessage[] = [];
      for await (const page of find(filters, call)) containers.push(...page);
      return { containers };
    },

    async *listStream({ filters }, call) {
      for await (const page of find(filters, call)) for (const container of page) yield { container };
    },

    async create({ container }, call) {
      const namespace = requireNamespace(call);
      const asked = during('create container', () => {
        if (container === undefined) throw invalid('container.ID: identifier must not be empty');
        return validate(fromMessage(container));
      });
      failpoint('containers.create.before-record');
      const created = await store.create(namespace, asked);
      failpoint('containers.create.before-reply');
      return { container: toMessage(created) };
    },

    async update({ container, updateMask }, call) {
      if (container === undefined || container.id === '') throw invalid('Container.ID required');
      const namespace = requireNamespace(call);
      const mask = parseFieldMask(updateMask, {
        fields: ['labels', 'spec', 'extensions', 'image', 'snapshotkey'],
        maps: ['labels', 'extensions'],
        what: `container ${quote(container.id.slice(0, 300))}`,
      });
      failpoint('containers.update.before-record');
      const updated = await store.update(namespace, container.id, (current) => {
        if (mask.length === 0) refuseImmutable(current, container);
        return during('update', () => validate(apply(current, container, mask.length === 0 ? everything : mask)));
      });
      failpoint('containers.update.before-reply');
      return { container: toMessage(updated) };
    },

    async delete({ id }, call) {
      const namespace = requireNamespace(call);
      failpoint('containers.delete.before-record');
      await store.delete(namespace, id);
      failpoint('containers.delete.before-reply');
      return {};
    },
  };
}

/** What an update without a mask replaces; options of the runtime stay those of the creation. */
const everything: readonly MaskPath[] = ['labels', 'spec', 'extensions', 'image', 'snapshotkey'].map((field) => ({
  field,
  key: undefined,
}));

/** An update without a mask carries the whole container, so what cannot change has to be repeated. */
function refuseImmutable(current: Container, asked: ContainerMessage): void {
  if (asked.snapshotter !== current.snapshotter) throw invalid('container.Snapshotter field is immutable');
  if ((asked.runtime?.name ?? '') !== current.runtime.name) throw invalid('container.Runtime.Name field is immutable');
}

/** Paths in their order; an entry that a path names and the message lacks is one to delete. */
function apply(current: Container, asked: ContainerMessage, mask: readonly MaskPath[]): Container {
  let result = current;
  for (const { field, key } of mask) {
    switch (field) {
      case 'labels':
        result = { ...result, labels: key === undefined ? copyLabels(asked.labels) : label(result, asked, key) };
        break;
      case 'spec':
        if (asked.spec === undefined) throw invalid('container.Spec must be set');
        result = { ...result, spec: asked.spec };
        break;
      case 'extensions':
        result = { ...result, extensions: key === undefined ? asked.extensions : extension(result, asked, key) };
        break;
      case 'image':
        result = { ...result, image: asked.image };
        break;
      case 'snapshotkey':
        result = { ...result, snapshotKey: asked.snapshotKey };
        break;
    }
  }
  return result;
}

function label(current: Container, { labels }: ContainerMessage, key: string): Container['labels'] {
  return mergeLabels(current.labels, Object.fromEntries([[key, Object.hasOwn(labels, key) ? labels[key]! : '']]));
}

function extension(current: Container, { extensions }: ContainerMessage, key: string): Container['extensions'] {
  const others = Object.entries(current.extensions).filter(([name]) => name !== key);
  // fromEntries, since a plain assignment to __proto__ is lost.
  return Object.fromEntries(Object.hasOwn(extensions, key) ? [...others, [key, extensions[key]!]] : others);
}
