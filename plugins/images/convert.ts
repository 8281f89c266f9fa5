/** Images between their messages and the store, what filters see of them, and what makes one valid. */
import { Failure } from 'troupe/plugin';
import type { Image as ImageMessage } from 'troupe/proto/containerd/services/images/v1/images.ts';
import type { Descriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import { digestProblem } from '../lib/digest/digest.ts';
import { type Adaptor, absent, field, labelField } from '../lib/filter/filter.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, validateLabels } from '../lib/label/label.ts';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Image, Target } from './store.ts';

/** `name`, `target.digest`, `target.mediatype`, `labels.KEY`, `annotations.KEY` */
export function adaptor(image: Image): Adaptor {
  return (fieldpath) => {
    switch (fieldpath[0]) {
      case 'name':
        return field(image.name);
      case 'target':
        if (fieldpath[1] === 'digest') return field(image.target.digest);
        return fieldpath[1] === 'mediatype' ? field(image.target.mediaType) : absent;
      case 'labels':
        return labelField(image.labels, fieldpath);
      case 'annotations':
        return labelField(image.target.annotations, fieldpath);
      default:
        return absent;
    }
  };
}

export function toMessage(image: Image): ImageMessage {
  const { digest, mediaType, size, annotations } = image.target;
  return {
    name: image.name,
    labels: { ...image.labels },
    target: { digest, mediaType, size, annotations: { ...annotations } },
    createdAt: fromNanoseconds(image.created),
    updatedAt: fromNanoseconds(image.updated),
  };
}

export function toTarget(descriptor: Descriptor | undefined): Target {
  return {
    digest: descriptor?.digest ?? '',
    mediaType: descriptor?.mediaType ?? '',
    size: descriptor?.size ?? 0n,
    annotations: copyLabels(descriptor?.annotations ?? {}),
  };
}

/** @throws Failure InvalidArgument naming the field. */
export function validate<T extends Pick<Image, 'target' | 'labels'>>(image: T): T {
  const { digest, mediaType, size } = image.target;
  validateLabels(image.labels, 'image.Labels');
  const problem = digestProblem(digest);
  if (problem !== undefined)
    throw new Failure(
      'InvalidArgument',
      `Target.Digest ${quote(digest.slice(0, 300))} invalid: ${problem}: invalid argument`,
    );
  if (size <= 0n) throw new Failure('InvalidArgument', 'Target.Size must be greater than zero: invalid argument');
  if (mediaType === '') throw new Failure('InvalidArgument', 'Target.MediaType must be set: invalid argument');
  return image;
}
