/** Image store → registry: blobs first, side by side, then the documents that name them, the one with the tag last. */
import type { Descriptor } from '../lib/image/document.ts';
import { isForeign, isIndex, isManifest } from '../lib/image/media-type.ts';
import { pushBlob, type PushOptions, pushManifest } from '../lib/registry/push.ts';
import type { Registry } from '../lib/registry/registry.ts';
import { sourceLabel } from './pull.ts';
import type { Scope } from './scope.ts';
import { partsOf } from './stored.ts';
import { type Slots, together } from './together.ts';
import type { Selection } from './tree.ts';

export async function push(
  scope: Scope,
  registry: Registry,
  target: Descriptor,
  name: string,
  options: { readonly selection: Selection; readonly push: PushOptions; readonly uploads: Slots },
): Promise<void> {
  const { progress, signal } = scope;
  const parts = await partsOf(scope, target, options.selection);
  const isDocument = ({ mediaType }: Descriptor): boolean => isManifest(mediaType) || isIndex(mediaType);
  for (const part of parts.toReversed()) progress.add(part, part.digest === target.digest ? undefined : target, name);
  const blobs = parts.filter((part) => !isDocument(part) && !isForeign(part.mediaType));
  await together(
    signal,
    blobs.map((blob) => (stop) => options.uploads.use(stop, () => sendBlob(scope, registry, blob, options.push, stop))),
  );
  for (const document of parts.filter(isDocument)) {
    const { tag, digest } = registry.reference;
    const as = document.digest === target.digest ? (tag ?? digest ?? document.digest) : document.digest;
    const bytes = await scope.content.read(document, signal);
    const came = await pushManifest(registry, document, bytes, as, signal);
    progress.update(came === 'there' ? 'already exists' : 'complete', document, document.size);
  }
}

async function sendBlob(
  scope: Scope,
  registry: Registry,
  blob: Descriptor,
  options: PushOptions,
  signal: AbortSignal,
): Promise<void> {
  const { content, progress } = scope;
  const labels = (await content.find(blob.digest, signal)) ?? {};
  const source = {
    bytes: (offset: number, stop: AbortSignal) => content.bytes(blob.digest, offset, stop),
    repositories: (labels[sourceLabel(registry.reference.hostname)] ?? '').split(',').filter((each) => each !== ''),
    onProgress: (offset: number) => progress.update('uploading', blob, offset),
  };
  const came = await pushBlob(registry, blob, source, options, signal);
  progress.update(came === 'there' ? 'already exists' : 'complete', blob, blob.size);
}
