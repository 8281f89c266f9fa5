/**
 * One pass over a layer: compressed bytes are hashed, inflated, hashed again and unpacked, while the next ones are being read.
 */

import { createHash, type Hash } from 'node:crypto';
import { Failure } from 'troupe/plugin';
import { decompress } from '../compression/decompress.ts';
import type { Compression } from '../compression/format.ts';
import { type TarLimits, TarReader } from '../tar/reader.ts';
import { type Deferred, type Extracted, Extractor, type LayerMode } from './extract.ts';
import type { LowerLayers } from './lower.ts';

export interface ApplyOptions {
  /** What is read, for messages: `layer sha256:…` */
  readonly subject: string;
  readonly mode: LayerMode;
  readonly lower?: LowerLayers;
  readonly limits?: Partial<TarLimits>;
  /** Uncompressed bytes beyond which the layer is refused; 0 or absent: no limit. */
  readonly maxBytes?: number;
  /** Hash of the compressed bytes (`sha256`, `sha384`, `sha512`); absent: they are not hashed. */
  readonly algorithm?: string;
  /** Called with the uncompressed bytes so far, about every `progressBytes` (default 16 MiB). */
  progress?(bytes: number): void;
  readonly progressBytes?: number;
  /** Another thread asks for an end by making the first element non-zero. Looked at once a chunk, at most 1 MiB of the tar. */
  readonly cancel?: Int32Array;
}

export interface Applied extends Extracted {
  readonly compression: Compression;
  /** `sha256:…` of the uncompressed archive, its end blocks and whatever is behind them included. */
  readonly diffId: string;
  /** Uncompressed bytes. */
  readonly size: number;
  /** `ALGORITHM:…` of the bytes as they came; undefined when they were not hashed. */
  readonly digest: string | undefined;
  /** Bytes as they came. */
  readonly compressedSize: number;
  readonly deferred: Deferred;
}

const PROGRESS = 16 << 20;

/**
 * Unpacks `source` into the directory that `root` holds.
 *
 * @throws Failure InvalidArgument for a malformed archive or one whose entries no file system can hold; ResourceExhausted beyond a budget and for a full
 * disk; Canceled when asked to stop. The directory then has part of the layer, and is the caller's to remove.
 */
export async function applyLayer(
  root: number,
  source: AsyncIterable<Uint8Array>,
  options: ApplyOptions,
): Promise<Applied> {
  const { subject, algorithm, maxBytes = 0, progressBytes = PROGRESS } = options;
  const compressedHash = algorithm === undefined ? undefined : createHash(algorithm);
  const counter = new Counter(source, compressedHash);
  const hash = createHash('sha256');
  const extractor = new Extractor(root, {
    mode: options.mode,
    subject,
    ...(options.lower === undefined ? {} : { lower: options.lower }),
  });
  try {
    const reader = new TarReader(extractor, subject, options.limits);
    const { compression, bytes } = await decompress(counter.bytes(), subject);
    let size = 0;
    let reported = 0;
    for await (const chunk of bytes) {
      if (options.cancel !== undefined && Atomics.load(options.cancel, 0) !== 0) {
        throw new Failure('Canceled', `${subject}: context canceled`);
      }
      size += chunk.length;
      if (maxBytes > 0 && size > maxBytes) {
        throw new Failure('ResourceExhausted', `${subject}: more than ${maxBytes} bytes unpacked: resource exhausted`);
      }
      hash.update(chunk);
      reader.push(chunk);
      if (size - reported >= progressBytes) {
        reported = size;
        options.progress?.(size);
      }
    }
    reader.finish();
    const extracted = extractor.finish();
    return {
      ...extracted,
      compression,
      diffId: `sha256:${hash.digest('hex')}`,
      size,
      digest: compressedHash === undefined ? undefined : `${algorithm}:${compressedHash.digest('hex')}`,
      compressedSize: counter.size,
      deferred: extractor.deferred,
    };
  } catch (error) {
    extractor.close();
    throw error;
  }
}

class Counter {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #hash: Hash | undefined;
  size = 0;

  constructor(source: AsyncIterable<Uint8Array>, hash: Hash | undefined) {
    this.#source = source;
    this.#hash = hash;
  }

  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.#source) {
      this.size += chunk.length;
      this.#hash?.update(chunk);
      yield chunk;
    }
  }
}
