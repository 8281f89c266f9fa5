/**
 * The digest of an archive whose chunks two threads make and write: whichever has nothing better to do hashes the next. That is the assistant when the files are
 * many and small, since its ring is full most of the time, and the unpacker when it waits for chunks.
 */

import { createHash, type Hash } from 'node:crypto';
import { SharedSha256, sharedSha256Available } from '../digest/sha256.ts';
import { CHUNKS, CHUNKS_HASHED, CHUNKS_MADE, type FeedMemory, chunkAt, DIGEST, HASHING } from './feed-memory.ts';

/** What hashes an archive as it is written. */
export interface ArchiveDigest {
  /** The next bytes; they have been written, and are still there. */
  update(chunk: Uint8Array): void;
  /** In lower-case hexadecimal, once, at the end. */
  hex(): string;
}

export class LocalDigest implements ArchiveDigest {
  readonly #hash: Hash = createHash('sha256');

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
  }

  hex(): string {
    return this.#hash.digest('hex');
  }
}

/** The unpacker's. */
export class FeedDigest implements ArchiveDigest {
  readonly #memory: FeedMemory;
  readonly #hash: SharedSha256;
  /** The chunk of the ring that comes next, where an assistant makes them. */
  #index: number | undefined;

  constructor(memory: FeedMemory) {
    this.#memory = memory;
    this.#hash = new SharedSha256(memory.buffers.bulk, DIGEST);
    this.#hash.reset();
  }

  /** @param index in the ring, counted from the hand-over; undefined: nobody else knows the chunk */
  next(index: number | undefined): void {
    this.#index = index;
  }

  update(chunk: Uint8Array): void {
    if (this.#index === undefined) {
      this.#hash.update(chunk.byteOffset, chunk.length);
      return;
    }
    const memory = this.#memory;
    for (;;) {
      const hashed = memory.get(CHUNKS_HASHED);
      if (hashed > this.#index) return;
      // Looked at first: an assistant that gives back has left.
      const returned = memory.is('returned');
      if (hashNext(memory, this.#hash)) continue;
      // Its thread is gone, in the middle of it. The feed says so when it is asked for more.
      if (returned) return;
      memory.wait(CHUNKS_HASHED, hashed);
    }
  }

  hex(): string {
    return this.#hash.hex();
  }
}

/** The assistant's: hashes a chunk if there is one to hash. @returns whether it did */
export function digestHelper(memory: FeedMemory): () => boolean {
  if (!sharedSha256Available()) return () => false;
  const hash = new SharedSha256(memory.buffers.bulk, DIGEST);
  return () => memory.get(CHUNKS_HASHED) < memory.get(CHUNKS_MADE) && hashNext(memory, hash);
}

/** @returns false while the other thread is at it */
function hashNext(memory: FeedMemory, hash: SharedSha256): boolean {
  if (!memory.enter(HASHING)) return false;
  const hashed = memory.get(CHUNKS_HASHED);
  // The other may have done the last while this one looked.
  if (hashed < memory.get(CHUNKS_MADE)) {
    const slot = hashed % CHUNKS;
    hash.update(chunkAt(slot), memory.chunkLength(slot));
    memory.moved(CHUNKS_HASHED);
  }
  memory.leave(HASHING);
  return true;
}
