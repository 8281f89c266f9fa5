/** The other way: what a diff is stored as. */

import { pipeline, type Transform } from 'node:stream';
import { createGzip, createZstdCompress } from 'node:zlib';
import type { Compression } from './format.ts';

const CHUNK = 1 << 20;

/**
 * Compresses `source`. The same bytes give the same result on the same Node: gzip's header has no name and no time.
 * Levels are the formats' defaults (gzip 6, zstd 3), as containerd's.
 */
export function compress(source: AsyncIterable<Uint8Array>, compression: Compression): AsyncIterable<Uint8Array> {
  switch (compression) {
    case 'none':
      return source;
    case 'gzip':
      return through(createGzip({ chunkSize: CHUNK, highWaterMark: 4 * CHUNK } as object), source);
    case 'zstd':
      return through(createZstdCompress({ chunkSize: CHUNK, highWaterMark: 4 * CHUNK } as object), source);
  }
}

async function* through(
  engine: Transform,
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  pipeline(source, engine, () => {});
  for await (const chunk of engine) yield chunk as Uint8Array;
}
