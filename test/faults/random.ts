/** Random numbers that a seed repeats, whoever draws them. */
import { createHash } from 'node:crypto';

export class Random {
  readonly #seed: string;
  #count = 0;

  constructor(seed: string) {
    this.#seed = seed;
  }

  /** Uniform in [0, 1). */
  next(): number {
    const hash = createHash('sha256')
      .update(`${this.#seed}/${this.#count++}`)
      .digest();
    return hash.readUInt32BE(0) / 2 ** 32;
  }

  /** A whole number, both ends included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.between(0, items.length - 1)]!;
  }
}

/** Bytes that anybody can make again from their name: the same prefix for every size. */
export function bytesOf(name: string, size: number): Buffer {
  return size === 0 ? Buffer.alloc(0) : createHash('shake256', { outputLength: size }).update(name).digest();
}
