/**
 * Memory that C reads and writes and two threads may hold: a SharedArrayBuffer never moves, and lives as long as anybody refers to it. Functions of C are
 * given addresses in it as numbers, which is all that they take of JavaScript.
 */

import type { ForeignLibrary } from 'troupe/sys';

export class NativeMemory {
  readonly buffer: SharedArrayBuffer;
  readonly bytes: Buffer;
  readonly view: DataView;
  readonly #base: bigint;

  constructor(library: ForeignLibrary, buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.bytes = Buffer.from(buffer as unknown as ArrayBuffer);
    this.view = new DataView(buffer);
    this.#base = library.address(this.bytes);
  }

  address(offset: number): bigint {
    return this.#base + BigInt(offset);
  }
}

/** A piece of some `NativeMemory`, by its address and length. */
export interface Region {
  readonly address: bigint;
  readonly length: number;
  /** The same bytes, for what is done in JavaScript. */
  readonly bytes: Buffer;
}

export function regionOf(memory: NativeMemory, offset: number, length: number): Region {
  return { address: memory.address(offset), length, bytes: memory.bytes.subarray(offset, offset + length) };
}
