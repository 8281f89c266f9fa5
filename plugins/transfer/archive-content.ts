/** What the files of an archive become while it is read. */
import { randomBytes } from 'node:crypto';
import { Failure } from 'troupe/plugin';
import { compress } from '../lib/compression/compress.ts';
import type { Digest } from '../lib/digest/digest.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { childLabels } from '../lib/image/media-type.ts';
import type { Scope } from './scope.ts';

/** A file of the archive that is content now. */
export interface StoredFile {
  readonly digest: Digest;
  readonly size: number;
  readonly compressed: boolean;
  /** Of small ones, for who reads a config. */
  readonly bytes: Uint8Array | undefined;
}

export interface StoredFiles {
  /** By name, through links. */
  get(name: string): StoredFile | undefined;
}

/** A document that was made here, or came in one piece. */
export async function storeDocument(
  scope: Scope,
  descriptor: Pick<Descriptor, 'mediaType' | 'digest' | 'size'>,
  bytes: Uint8Array,
  children: readonly Descriptor[],
): Promise<void> {
  const labels = childLabels(children);
  const source = async function* (offset: number): AsyncGenerator<readonly Uint8Array[], void, undefined> {
    yield [bytes.subarray(offset)];
  };
  const came = await scope.content.write(
    descriptor,
    { labels: () => labels, source, onProgress: () => {} },
    scope.signal,
  );
  if (came === 'there') await scope.content.label(descriptor.digest, labels, scope.signal);
}

/** Layers as they are, or compressed by gzip where they are plain: each once, however many images have it. */
export function layersToStore(scope: Scope, force: boolean): (layer: StoredFile) => Promise<StoredFile> {
  const made = new Map<Digest, Promise<StoredFile>>();
  return (layer) => {
    if (layer.compressed || !force) return Promise.resolve(layer);
    const known = made.get(layer.digest) ?? compressed(scope, layer);
    made.set(layer.digest, known);
    return known;
  };
}

async function compressed({ content, signal }: Scope, layer: StoredFile): Promise<StoredFile> {
  let size = 0;
  const bytes = async function* (): AsyncGenerator<readonly Uint8Array[], void, undefined> {
    for await (const chunk of compress(content.bytes(layer.digest, 0, signal), 'gzip')) {
      size += chunk.length;
      yield [chunk];
    }
  };
  const ref = `compress-${randomBytes(12).toString('hex')}`;
  const digest = await content.writeUnknown(ref, undefined, bytes(), signal);
  return { digest, size, compressed: true, bytes: undefined };
}

export function invalid(problem: string): Failure {
  return new Failure('InvalidArgument', `archive of images: ${problem}: invalid argument`);
}
