/**
 * Space kept back, so that a full disk can still be emptied: deleting rows makes the log grow first.
 *
 * The file is given up when a commit that only deletes finds no room, and from then until it is whole again commits that would grow the
 * database are refused: otherwise they would eat what the deletes need.
 */
import { closeSync, openSync, statfsSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { randomFillSync } from 'node:crypto';

/** How often a missing reserve is tried again, ms. */
const retryMs = 1000;

export class Reserve {
  readonly #path: string;
  readonly #size: number;
  #held = false;
  #tried = Number.NEGATIVE_INFINITY;

  /** @param size bytes; 0 keeps nothing back. */
  constructor(path: string, size: number) {
    this.#path = path;
    this.#size = size;
  }

  /** There is nothing between a delete and the full disk any more. */
  get missing(): boolean {
    return !this.#held && this.#size > 0;
  }

  /** Takes the space if it does not have it; at most once a second, since a full disk stays full for a while. */
  take(): boolean {
    if (this.#held || this.#size === 0) return true;
    if (performance.now() - this.#tried < retryMs) return false;
    this.#tried = performance.now();
    try {
      this.#held = statSync(this.#path, { throwIfNoEntry: false })?.size === this.#size;
      if (this.#held) return true;
      const { bavail, bsize } = statfsSync(this.#path.slice(0, this.#path.lastIndexOf('/')));
      // Not with the last block: the log needs some to grow.
      if (bavail * bsize < this.#size * 2) return false;
      this.#write();
      this.#held = true;
    } catch {
      this.#remove();
    }
    return this.#held;
  }

  /** Gives the space to whoever writes next; false when there was none to give. */
  release(): boolean {
    if (!this.#held) return false;
    this.#held = false;
    this.#tried = performance.now();
    this.#remove();
    return true;
  }

  #write(): void {
    // Random, because a file system that compresses would keep no room for zeros. No fsync: the room is taken by the write, and a
    // power cut that loses it loses nothing else.
    const block = randomFillSync(new Uint8Array(64 * 1024));
    const fd = openSync(this.#path, 'w', 0o600);
    try {
      for (let written = 0; written < this.#size; )
        written += writeSync(fd, block, 0, Math.min(block.length, this.#size - written));
    } finally {
      closeSync(fd);
    }
  }

  #remove(): void {
    try {
      unlinkSync(this.#path);
    } catch {
      // It was not there, or cannot be removed: then it gives no room, and the next take() finds it whole.
    }
  }
}
