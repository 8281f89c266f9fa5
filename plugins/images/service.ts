/** containerd.services.images.v1.Images */
import { setImmediate as turn } from 'node:timers/promises';
import { type Call, Failure, failpoint, type Service } from 'troupe/plugin';
import type { Image as ImageMessage, ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { type MaskPath, parseFieldMask } from '../lib/fieldmask/fieldmask.ts';
import { parseFilters } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, mergeLabels, type Labels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { toNanoseconds } from '../lib/timestamp/timestamp.ts';
import { adaptor, toMessage, toTarget, validate } from './convert.ts';
import type { Image, Store } from './store.ts';

/** Records per read; between two reads others have their turn. */
const pageSize = 500;

export function imagesService(
  store: Store,
  options: { collect: (call: Call) => Promise<unknown> },
): Service<typeof ImagesDefinition> {
  return {
    get({ name }, call) {
      return { image: toMessage(store.get(requireNamespace(call), name)) };
    },

    async list({ filters }, call) {
      const namespace = requireNamespace(call);
      const matches = parseFilters(filters);
      const images: ImageMessage[] = [];
      for (let after = ''; ; ) {
        const page = store.page(namespace, after, pageSize);
        for (const image of page) if (matches(adaptor(image))) images.push(toMessage(image));
        if (page.length < pageSize) return { images };
        after = page.at(-1)!.name;
        await turn();
        call.signal.throwIfAborted();
      }
    },

    async create({ image, sourceDateEpoch }, call) {
      const name = requireName(image);
      const namespace = requireNamespace(call);
      const asked = validate({
        name,
        target: toTarget(image?.target),
        labels: copyLabels(image?.labels ?? {}),
      });
      failpoint('images.create.before-record');
      const created = await store.create(namespace, asked, call.lease, epoch(sourceDateEpoch));
      failpoint('images.create.before-reply');
      return { image: toMessage(created) };
    },

    async update({ image, updateMask, sourceDateEpoch }, call) {
      const name = requireName(image);
      const namespace = requireNamespace(call);
      const mask = parseFieldMask(updateMask, {
        fields: ['labels', 'target', 'annotations'],
        maps: ['labels', 'annotations'],
        what: `image ${quote(name)}`,
      });
      const asked = { target: toTarget(image?.target), labels: image?.labels ?? {} };
      const annotations = image?.target?.annotations ?? {};
      failpoint('images.update.before-record');
      const updated = await store.update(
        namespace,
        name,
        call.lease,
        (current) => validate(mask.length === 0 ? replace(asked) : apply(current, asked, annotations, mask)),
        epoch(sourceDateEpoch),
      );
      failpoint('images.update.before-reply');
      return { image: toMessage(updated) };
    },

    async delete({ name, sync, target }, call) {
      const namespace = requireNamespace(call);
      failpoint('images.delete.before-record');
      await store.delete(namespace, name, call.lease, target?.digest ?? '');
      failpoint('images.delete.after-record');
      if (sync) await options.collect(call);
      return {};
    },
  };
}

type Changeable = Pick<Image, 'target' | 'labels'>;

function replace(asked: Changeable): Changeable {
  return { target: asked.target, labels: copyLabels(asked.labels) };
}

/** Paths in their order; an entry that a path names and the message lacks, or has empty, is one to delete. */
function apply(current: Image, asked: Changeable, annotations: Labels, mask: readonly MaskPath[]): Changeable {
  let { target, labels } = current as Changeable;
  for (const { field, key } of mask) {
    if (field === 'target') target = asked.target;
    else if (field === 'labels') labels = key === undefined ? copyLabels(asked.labels) : one(labels, asked.labels, key);
    else {
      const changed = key === undefined ? copyLabels(annotations) : one(target.annotations, annotations, key);
      target = { ...target, annotations: changed };
    }
  }
  return { target, labels };
}

function one(current: Labels, asked: Labels, key: string): Labels {
  return mergeLabels(current, Object.fromEntries([[key, Object.hasOwn(asked, key) ? asked[key]! : '']]));
}

function requireName(image: ImageMessage | undefined): string {
  if (image === undefined || image.name === '')
    throw new Failure('InvalidArgument', 'Image.Name required: invalid argument');
  return image.name;
}

/** Reproducible builds say which time an image is of. @throws Failure InvalidArgument for one that is none, or that a record cannot hold */
function epoch(timestamp: Parameters<typeof toNanoseconds>[0]): bigint | undefined {
  if (timestamp === undefined) return undefined;
  const { seconds, nanos } = timestamp;
  const time = toNanoseconds(timestamp);
  if (nanos >= 0 && nanos < 1_000_000_000 && time === BigInt.asIntN(64, time)) return time;
  throw new Failure(
    'InvalidArgument',
    `source_date_epoch of ${seconds} s and ${nanos} ns is not a time between the years 1677 and 2262: invalid argument`,
  );
}
