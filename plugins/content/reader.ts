/** Bytes of a blob, in pieces. */
import { closeSync, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { Failure } from 'troupe/plugin';
import type { Digest } from '../lib/digest/digest.ts';
import type { Disk } from './disk.ts';
import type { Blob } from './store.ts';

const readFile = promisify(read);

/**
 * Clients that read at random places ask for "the rest from here" and cancel after the 32 KiB they wanted, thousands of times for an
 * export. So the first piece is small, and only who stays gets large ones.
 */
const firstPiece = 32 * 1024;
const largestPiece = 1 << 20;

/**
 * @param offset 0 to the size, where it yields nothing.
 * @param size bytes; 0, or more than there are: the rest.
 * @throws Failure OutOfRange; DataLoss when the file is not what the record says.
 */
export async function* readBlob(
  disk: Disk,
  blob: Blob,
  offset: bigint,
  size: bigint,
  signal: () => AbortSignal,
): AsyncGenerator<{ offset: bigint; data: Uint8Array }> {
  if (offset < 0n || size < 0n)
    throw new Failure('OutOfRange', `content ${blob.digest}: negative offset or size: out of range`);
  if (offset > blob.size)
    throw new Failure('OutOfRange', `content ${blob.digest}: read past object length ${blob.size} bytes: out of range`);
  const end = Number(size === 0n || size > blob.size - offset ? blob.size : offset + size);
  let position = Number(offset);
  const fd = disk.openBlob(blob.digest, blob.size);
  if (fd === undefined) throw damaged(blob.digest);
  try {
    for (let piece = firstPiece; position < end; piece = Math.min(piece * 4, largestPiece)) {
      const length = Math.min(piece, end - position);
      const data = Buffer.allocUnsafeSlow(length);
      // The first piece is most likely in the page cache, and then a hop to another thread costs more than reading it.
      const bytes =
        length <= firstPiece
          ? readSync(fd, data, 0, length, position)
          : (await readFile(fd, data, 0, length, position)).bytesRead;
      if (bytes === 0) throw damaged(blob.digest);
      yield { offset: BigInt(position), data: bytes === length ? data : data.subarray(0, bytes) };
      position += bytes;
      signal().throwIfAborted();
    }
  } finally {
    closeSync(fd);
  }
}

function damaged(digest: Digest): Failure {
  return new Failure('DataLoss', `content ${digest}: its file is missing or of another size: data loss`);
}
