/**
 * One pass over a layer: its bytes are inflated, hashed and unpacked.
 *
 * The compressed bytes were hashed when the content store took them. They are again where nothing else would show that they have changed since: gzip has a check
 * of all that comes out of it, and whoever has a layer applied compares its diff id, so hashing them would tell nothing new for 6 % of the processor time.
 * zstd's check is an option of whoever compresses; `zstd` itself and what builds images (klauspost/compress) have it on.
 *
 * `applyBlob` takes a file and does it all by itself, piece after piece, without ever waiting for the event loop; another thread may take the inflating
 * over at any moment (feed.ts). `applyLayer` takes bytes from anywhere, and is the way for what only node:zlib can inflate: on threads of libuv's, while
 * the last chunk is being unpacked here.
 */

import { createHash, type Hash } from 'node:crypto';
import { readSync } from 'node:fs';
import { dataFailure } from '../compression/corrupt.ts';
import { hasDecoder, type Inflate } from '../compression/decoder.ts';
import { decompress } from '../compression/decompress.ts';
import { type Compression, detectCompression, MAGIC_BYTES } from '../compression/format.ts';
import { beginsChecked } from '../compression/unzstd.ts';
import type { Arrival } from './arrival.ts';
import { Feed } from './feed.ts';
import type { FeedMemory } from './feed-memory.ts';
import { LayerSink, type SinkOptions, type Sunk } from './sink.ts';

export interface ApplyOptions extends SinkOptions {
  /** Hash of the compressed bytes (`sha256`, `sha384`, `sha512`); absent: they are not hashed. */
  readonly algorithm?: string;
}

export interface ApplyBlobOptions extends ApplyOptions {
  /** As above; without effect for gzip. */
  readonly algorithm: string;
  readonly inflate: Inflate;
  readonly memory: FeedMemory;
  /** Of a file that still grows. */
  readonly arrival?: Arrival | undefined;
}

export interface Applied extends Sunk {
  readonly compression: Compression;
  /** `ALGORITHM:…` of the bytes as they came; undefined when they were not hashed. */
  readonly digest: string | undefined;
  /** Bytes as they came. */
  readonly compressedSize: number;
}

const CHUNK = 1 << 20;

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
  const { subject, algorithm } = options;
  const hash = algorithm === undefined ? undefined : createHash(algorithm);
  const counter = new Counter(source, hash);
  const sink = new LayerSink(root, options);
  try {
    const { compression, bytes } = await decompress(counter.bytes(), subject);
    for await (const chunk of bytes) sink.push(chunk);
    return {
      ...sink.finish(),
      compression,
      digest: hash === undefined ? undefined : `${algorithm}:${hash.digest('hex')}`,
      compressedSize: counter.size,
    };
  } catch (error) {
    sink.close();
    throw error;
  }
}

/** As `applyLayer`, of the whole file `fd`, which is at its beginning. It stays the caller's to close. */
export async function applyBlob(root: number, fd: number, options: ApplyBlobOptions): Promise<Applied> {
  const { subject, algorithm, inflate, memory, arrival } = options;
  const head = Buffer.alloc(MAGIC_BYTES);
  // One by one: a blob may end sooner.
  for (let at = 0; at < MAGIC_BYTES; at++) arrival?.wait(at);
  const compression = detectCompression(head.subarray(0, readSync(fd, head, 0, MAGIC_BYTES, 0)));
  const gzip = compression === 'gzip';
  if (!hasDecoder(compression, inflate)) {
    memory.close();
    const { algorithm: _, ...unhashed } = options;
    const same = compression === 'none' && algorithm === 'sha256';
    // Node's zstd does not tell which of its frames it has checked.
    const hashed = same || gzip ? unhashed : options;
    const applied = await applyLayer(root, readFile(fd, arrival), hashed);
    return same ? { ...applied, digest: applied.diffId } : applied;
  }
  const hash = gzip || beginsChecked(head) ? undefined : createHash(algorithm);
  const feed = new Feed(memory, compression, fd, hash, arrival);
  const sink = new LayerSink(root, { ...options, digest: feed.digest });
  try {
    for (const chunk of feed.chunks()) sink.push(chunk);
    return {
      ...sink.finish(),
      compression,
      // A later frame may have had no checksum after all.
      digest: hash ? `${algorithm}:${hash.digest('hex')}` : feed.checked ? undefined : digestOfFile(fd, algorithm),
      compressedSize: feed.size,
    };
  } catch (error) {
    sink.close();
    throw dataFailure(error, subject, compression);
  } finally {
    feed.close();
  }
}

/** `ALGORITHM:…` of all of the file. */
export function digestOfFile(fd: number, algorithm: string): string {
  const hash = createHash(algorithm);
  const buffer = Buffer.allocUnsafeSlow(CHUNK);
  for (let at = 0; ; ) {
    const length = readSync(fd, buffer, 0, CHUNK, at);
    if (length === 0) return `${algorithm}:${hash.digest('hex')}`;
    hash.update(buffer.subarray(0, length));
    at += length;
  }
}

async function* readFile(fd: number, arrival: Arrival | undefined): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; ; ) {
    // A buffer of its own each: the inflater still reads the last one.
    const chunk = Buffer.allocUnsafeSlow(CHUNK);
    await arrival?.waitAsync(at);
    const length = readSync(fd, chunk, 0, CHUNK, at);
    if (length === 0) return;
    at += length;
    yield chunk.subarray(0, length);
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
