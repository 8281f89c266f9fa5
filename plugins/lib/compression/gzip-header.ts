/** A gzip member's header (RFC 1952, 2.3), a piece at a time. What is wrong is said in zlib's words. */

import { crc32 } from 'node:zlib';
import { CorruptData } from './corrupt.ts';

const FHCRC = 2;
const FEXTRA = 4;
const FNAME = 8;
const FCOMMENT = 16;
const RESERVED = 0xe0;
const FIXED = 10;

/** Names and comments may be as long as they like: they are gone through, not kept. */
export class GzipHeader {
  readonly #fixed: number[] = [];
  #flags = 0;
  #crc = 0;
  #extraLength: number[] = [];
  #extraLeft = -1;
  #hcrc: number[] = [];
  #part: 'fixed' | 'extra' | 'name' | 'comment' | 'hcrc' | 'done' = 'fixed';

  get done(): boolean {
    return this.#part === 'done';
  }

  /** @returns bytes taken; all of them unless the header ended. @throws CorruptData */
  take(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length && this.#part !== 'done') at += this.#step(bytes, at);
    return at;
  }

  #step(bytes: Uint8Array, at: number): number {
    switch (this.#part) {
      case 'fixed':
        return this.#takeFixed(bytes, at);
      case 'extra':
        return this.#takeExtra(bytes, at);
      case 'name':
      case 'comment':
        return this.#takeText(bytes, at);
      default:
        return this.#takeCrc(bytes[at]!);
    }
  }

  #takeFixed(bytes: Uint8Array, at: number): number {
    const fixed = this.#fixed;
    fixed.push(bytes[at]!);
    if (fixed.length === 2 && (fixed[0] !== 0x1f || fixed[1] !== 0x8b)) throw new CorruptData('incorrect header check');
    if (fixed.length === 4) {
      if (fixed[2] !== 8) throw new CorruptData('unknown compression method');
      if ((fixed[3]! & RESERVED) !== 0) throw new CorruptData('unknown header flags set');
      this.#flags = fixed[3]!;
    }
    if (fixed.length === FIXED) {
      this.#crc = crc32(Buffer.from(fixed));
      this.#next('extra');
    }
    return 1;
  }

  #takeExtra(bytes: Uint8Array, at: number): number {
    if (this.#extraLeft < 0) {
      this.#extraLength.push(bytes[at]!);
      this.#count(bytes, at, 1);
      if (this.#extraLength.length < 2) return 1;
      this.#extraLeft = this.#extraLength[0]! | (this.#extraLength[1]! << 8);
      if (this.#extraLeft === 0) this.#next('name');
      return 1;
    }
    const taken = Math.min(this.#extraLeft, bytes.length - at);
    this.#count(bytes, at, taken);
    this.#extraLeft -= taken;
    if (this.#extraLeft === 0) this.#next('name');
    return taken;
  }

  #takeText(bytes: Uint8Array, at: number): number {
    const end = bytes.indexOf(0, at);
    const taken = (end < 0 ? bytes.length : end + 1) - at;
    this.#count(bytes, at, taken);
    if (end >= 0) this.#next(this.#part === 'name' ? 'comment' : 'hcrc');
    return taken;
  }

  #takeCrc(byte: number): number {
    this.#hcrc.push(byte);
    if (this.#hcrc.length < 2) return 1;
    if ((this.#hcrc[0]! | (this.#hcrc[1]! << 8)) !== (this.#crc & 0xffff)) throw new CorruptData('header crc mismatch');
    this.#part = 'done';
    return 1;
  }

  #count(bytes: Uint8Array, at: number, length: number): void {
    if ((this.#flags & FHCRC) !== 0) this.#crc = crc32(bytes.subarray(at, at + length), this.#crc);
  }

  /** The part that comes at `from` or, where the flags have none, behind it. */
  #next(from: 'extra' | 'name' | 'comment' | 'hcrc'): void {
    const parts = ['extra', 'name', 'comment', 'hcrc'] as const;
    const flags = { extra: FEXTRA, name: FNAME, comment: FCOMMENT, hcrc: FHCRC };
    this.#part = parts.slice(parts.indexOf(from)).find((part) => (this.#flags & flags[part]) !== 0) ?? 'done';
  }
}
