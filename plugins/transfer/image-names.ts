/** Images as the destination of a transfer: under which names, and who wins when one is there. */
import { type Call, type CallOptions, Failure } from 'troupe/plugin';
import type { Image } from 'troupe/proto/containerd/services/images/v1/images.ts';
import type { ImageStore } from 'troupe/proto/containerd/types/transfer/image_store.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { IMAGE_NAME, REF_NAME } from './docker-archive.ts';
import type { Clients } from './scope.ts';

/** Names that the destination gives itself, whatever comes: its own, and its references that are no prefixes. */
export function givenNames({ name, extraReferences }: ImageStore, digest: string): string[] {
  const others = extraReferences.filter(({ isPrefix }) => !isPrefix);
  return [
    ...(name === '' ? [] : [name]),
    ...others.map((reference) => (reference.addDigest ? `${reference.name}@${digest}` : reference.name)),
  ];
}

/**
 * Names of an image in an archive, by the destination's rules: a prefix is put before what is only a tag, and what is a whole name counts if it begins with the
 * prefix, or if the rule lets the archive say.
 */
export function foundNames(
  { extraReferences }: ImageStore,
  { annotations, digest }: Pick<Descriptor, 'annotations' | 'digest'>,
): string[] {
  const names: string[] = [];
  for (const { name: prefix, isPrefix, allowOverwrite, addDigest, skipNamedDigest } of extraReferences) {
    if (!isPrefix) continue;
    const name = nameUnder(prefix, annotations, allowOverwrite);
    if (name !== '') names.push(name);
    if (addDigest && !(name !== '' && skipNamedDigest)) names.push(`${prefix}@${digest}`);
  }
  return [...new Set(names)];
}

function nameUnder(prefix: string, annotations: Readonly<Record<string, string>>, overwrite: boolean): string {
  const whole = annotations[IMAGE_NAME] ?? '';
  const translate = (ref: string): string => {
    if (prefix === '') return '';
    if (!/[/:@]/.test(ref)) return `${prefix}:${ref}`;
    const below = ref === prefix || (ref.startsWith(prefix) && ['/', ':', '@'].includes(ref[prefix.length]!));
    return overwrite || below ? ref : '';
  };
  // A whole name is taken as it is, or not at all.
  if (whole !== '') return translate(whole) === whole ? whole : '';
  const tag = annotations[REF_NAME] ?? '';
  return tag === '' ? '' : translate(tag);
}

/** Names of images that a source means. @throws Failure Unimplemented for a prefix, NotFound for none */
export function lookedUpNames({ name, extraReferences }: ImageStore): string[] {
  if (extraReferences.some(({ isPrefix }) => isPrefix))
    throw new Failure('Unimplemented', 'prefix lookup on export not implemented: not implemented');
  const names = [...(name === '' ? [] : [name]), ...extraReferences.map((reference) => reference.name)];
  if (names.length === 0) throw new Failure('NotFound', 'no image name found: not found');
  return [...new Set(names)];
}

/**
 * Makes or changes the images of these names.
 *
 * @throws Failure NotFound without a name
 */
export async function storeImages(
  images: Clients['images'],
  names: readonly string[],
  target: Pick<Descriptor, 'mediaType' | 'digest' | 'size' | 'annotations'>,
  labels: Readonly<Record<string, string>>,
  call: Pick<Call, 'namespace' | 'lease' | 'signal' | 'trace'>,
): Promise<Image[]> {
  if (names.length === 0) throw new Failure('NotFound', 'no image name found: not found');
  const stored: Image[] = [];
  for (const name of names) stored.push(await storeImage(images, name, target, labels, call));
  return stored;
}

async function storeImage(
  images: Clients['images'],
  name: string,
  { mediaType, digest, size, annotations }: Pick<Descriptor, 'mediaType' | 'digest' | 'size' | 'annotations'>,
  labels: Readonly<Record<string, string>>,
  call: CallOptions,
): Promise<Image> {
  const image = {
    name,
    labels: { ...labels },
    target: { mediaType, digest, size: BigInt(size), annotations: { ...annotations } },
    createdAt: undefined,
    updatedAt: undefined,
  };
  for (;;) {
    try {
      return (await images.create({ image, sourceDateEpoch: undefined }, call)).image!;
    } catch (error) {
      if (!Failure.is(error, 'AlreadyExists')) throw error;
    }
    try {
      return (await images.update({ image, updateMask: [], sourceDateEpoch: undefined }, call)).image!;
    } catch (error) {
      // Removed meanwhile: made anew.
      if (!Failure.is(error, 'NotFound')) throw error;
    }
  }
}
