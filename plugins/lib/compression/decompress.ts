/**
 * Streams of bytes in, streams of plain bytes out.
 *
 * zlib and zstd come from Node: their work is done on libuv's threads, so inflating, hashing and unpacking of one layer overlap. Chunks are 1 MiB and up
 * to four lie ready; that bounds a layer at about 5 MiB, zstd's window apart.
 */

import { pipeline, type Transform } from 'node:stream';
import { constants, createGunzip, createZstdDecompress } from 'node:zlib';
import { Failure } from 'troupe/plugin';
import { CorruptData, dataFailure, ofNode, ZSTD_WINDOW_LOG } from './corrupt.ts';
import { type Compression, detectCompression, MAGIC_BYTES } from './format.ts';

const CHUNK = 1 << 20;
const AHEAD = 4 * CHUNK;

export interface Decompressed {
  readonly compression: Compression;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/**
 * Finds out how `source` is compressed and undoes it.
 *
 * gzip members and zstd frames that follow each other are joined; anything else behind them is an error, zeros too, as for Go: two readers of such a
 * file would see different layers.
 *
 * @param subject what is read, for messages: `layer sha256:…`
 * @throws Failure InvalidArgument here for xz and bzip2; while iterating for bytes that are cut off, corrupt, followed by others, or ask for a window
 * beyond 128 MiB
 */
export async function decompress(source: AsyncIterable<Uint8Array>, subject: string): Promise<Decompressed> {
  const iterator = source[Symbol.asyncIterator]();
  const { head, chunks } = await readHead(iterator);
  const compression = detectCompression(head);
  const whole = resume(chunks, iterator);
  switch (compression) {
    case 'none':
      return { compression, bytes: whole };
    case 'gzip':
      return { compression, bytes: through(gunzip(), whole, subject, compression) };
    case 'zstd':
      return { compression, bytes: through(unzstd(), whole, subject, compression) };
    default:
      await iterator.return?.();
      throw new Failure('InvalidArgument', `${subject}: compression ${compression} is not supported: invalid argument`);
  }
}

function gunzip(): Transform & { readonly bytesWritten: number } {
  return createGunzip({ chunkSize: CHUNK, highWaterMark: AHEAD } as object);
}

function unzstd(): Transform & { readonly bytesWritten: number } {
  const params = { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG };
  return createZstdDecompress({ chunkSize: CHUNK, highWaterMark: AHEAD, params } as object);
}

async function readHead(
  iterator: AsyncIterator<Uint8Array>,
): Promise<{ head: Uint8Array; chunks: readonly Uint8Array[] }> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done === true) break;
    chunks.push(next.value);
    length += next.value.length;
  }
  return { head: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks), chunks };
}

async function* resume(
  chunks: readonly Uint8Array[],
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* chunks;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
  } finally {
    await iterator.return?.();
  }
}

async function* through(
  engine: Transform & { readonly bytesWritten: number },
  source: AsyncIterable<Uint8Array>,
  subject: string,
  compression: 'gzip' | 'zstd',
): AsyncGenerator<Uint8Array, void, undefined> {
  let given = 0;
  let ended = false;
  let made = false;
  let sourceError: { error: unknown } | undefined;
  async function* counted(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of source) {
        given += chunk.length;
        yield chunk;
      }
      ended = true;
    } catch (error) {
      sourceError = { error };
      throw error;
    }
  }
  // Errors arrive through the iteration below; the callback keeps them from being unhandled as well.
  pipeline(counted, engine, () => {});
  try {
    for await (const chunk of engine) {
      made = true;
      yield chunk as Uint8Array;
    }
  } catch (error) {
    if (sourceError !== undefined) throw sourceError.error;
    throw dataFailure(ofNode(error, compression, made), subject, compression);
  }
  // The engine stops by itself at the end of a member or frame that something else follows.
  if (!ended || engine.bytesWritten !== given) {
    throw dataFailure(new CorruptData('trailing data'), subject, compression);
  }
}
