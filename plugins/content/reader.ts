/** Bytes of a blob, in pieces. */
import { closeSync, read, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Failure } from 'troupe/plugin';
import type { Digest } from '../lib/digest/digest.ts';
import type { Disk } from './disk.ts';
import type { Blob } from './store.ts';

const readFile = promisify(read);

/**
 * Clients that read at random places ask for "the rest from here" and cancel once they have the 32 KiB they wanted: an export of 160 MB
 * is 5 000 such calls. So the first piece is small, and a call that begins in the middle is given time to be cancelled before more is
 * read for it, which costs one that does want the rest these milliseconds, once.
 */
const firstPiece = 32 * 1024;
const largestPiece = 1 << 20;
const hesitation = 2;

/**
 * @param offset 0 to the size, where it yields nothing.
 * @param size bytes; 0, or more than there are: the rest.
 * @yields pieces in order. The bytes of one are good until the next is asked for.
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
    // Most likely in the page cache, and then a hop to another thread costs more than reading it.
    const first = Buffer.allocUnsafeSlow(Math.min(firstPiece, end - position));
    const bytes = readSync(fd, first, 0, first.length, position);
    if (bytes < first.length) throw damaged(blob.digest);
    if (bytes > 0) yield { offset, data: first };
    position += bytes;
    if (position === end) return;

    if (offset > 0n && size === 0n) await sleep(hesitation);
    const buffer = Buffer.allocUnsafeSlow(Math.min(largestPiece, end - position));
    for (let piece = firstPiece * 4; position < end; piece = Math.min(piece * 4, largestPiece)) {
      signal().throwIfAborted();
      const { bytesRead } = await readFile(fd, buffer, 0, Math.min(piece, end - position), position);
      if (bytesRead === 0) throw damaged(blob.digest);
      yield { offset: BigInt(position), data: buffer.subarray(0, bytesRead) };
      position += bytesRead;
    }
  } finally {
    closeSync(fd);
  }
}

function damaged(digest: Digest): Failure {
  return new Failure('DataLoss', `content ${digest}: its file is missing or of another size: data loss`);
}
