/**
 * The other way: what a diff is stored as. Bytes are cut into blocks of a fixed size, which are compressed beside each other on libuv's threads and put
 * back in order: the same bytes give the same result, however many threads there are.
 *
 * gzip: one member. Each block is deflated with the 32 KiB before it as its dictionary and ends on a byte, so that the pieces behind each other are one
 * stream, as pigz makes it; larger than in one go by about a tenth of a percent. zstd: a frame each, which every reader joins.
 */

import { promisify } from 'node:util';
import { constants, crc32, deflateRaw, zstdCompress } from 'node:zlib';
import type { Compression } from './format.ts';

const deflate = promisify(deflateRaw) as (bytes: Uint8Array, options: object) => Promise<Buffer>;
const compressFrame = promisify(zstdCompress) as (bytes: Uint8Array) => Promise<Buffer>;

/** Of uncompressed bytes. Part of the result: another size gives other bytes. */
const GZIP_BLOCK = 1 << 19;
const ZSTD_BLOCK = 4 << 20;
const WINDOW = 32 << 10;
/** Blocks under way at once: libuv has four threads, and others want some of them. */
const AHEAD = 4;

/** No name, no time, made on Unix. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);

/** Compresses `source`. Levels are the formats' defaults (gzip 6, zstd 3), as containerd's. */
export function compress(source: AsyncIterable<Uint8Array>, compression: Compression): AsyncIterable<Uint8Array> {
  switch (compression) {
    case 'none':
      return source;
    case 'gzip':
      return gzip(source);
    case 'zstd':
      return inOrder(blocks(source, ZSTD_BLOCK), ({ bytes }) => compressFrame(bytes));
  }
}

interface Block {
  readonly bytes: Buffer;
  /** The end of the block before it. */
  readonly before: Buffer;
  readonly last: boolean;
}

async function* gzip(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let crc = 0;
  let length = 0;
  yield HEADER;
  yield* inOrder(blocks(source, GZIP_BLOCK), ({ bytes, before, last }) => {
    crc = crc32(bytes, crc);
    length = (length + bytes.length) >>> 0;
    const finishFlush = last ? constants.Z_FINISH : constants.Z_SYNC_FLUSH;
    return deflate(bytes, { finishFlush, chunkSize: 1 << 18, ...(before.length === 0 ? {} : { dictionary: before }) });
  });
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc >>> 0, 0);
  trailer.writeUInt32LE(length, 4);
  yield trailer;
}

/** Blocks of exactly `size` bytes, the last one of what is left; one that is empty if there is nothing. */
async function* blocks(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Block, void, undefined> {
  let before: Buffer = Buffer.alloc(0);
  let block = Buffer.allocUnsafeSlow(size);
  let fill = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      // Only when more comes is a full block not the last.
      if (fill === size) {
        yield { bytes: block, before, last: false };
        before = block.subarray(size - WINDOW);
        block = Buffer.allocUnsafeSlow(size);
        fill = 0;
      }
      const taken = Math.min(size - fill, chunk.length - at);
      block.set(chunk.subarray(at, at + taken), fill);
      fill += taken;
      at += taken;
    }
  }
  yield { bytes: block.subarray(0, fill), before, last: true };
}

async function* inOrder(
  source: AsyncIterable<Block>,
  work: (block: Block) => Promise<Buffer>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const running: Promise<Buffer>[] = [];
  try {
    for await (const block of source) {
      const result = work(block);
      // Its failure is met when its turn comes.
      result.catch(() => {});
      running.push(result);
      if (running.length >= AHEAD) yield await running.shift()!;
    }
    while (running.length > 0) yield await running.shift()!;
  } finally {
    // Whoever stops early leaves no work behind that reads memory.
    await Promise.allSettled(running);
  }
}
