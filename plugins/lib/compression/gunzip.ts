/**
 * gzip (RFC 1952) by ISA-L, a piece at a time and without waiting: members that follow each other are joined, every CRC and length is checked, and
 * what is wrong is said in the words that node:zlib has for it, so that nobody can tell from a failure which of the two it was.
 */

import { CorruptData } from './corrupt.ts';
import { GzipHeader } from './gzip-header.ts';
import { RawInflate, STATE_BYTES } from './isal.ts';
import { type NativeMemory, type Region, regionOf } from './memory.ts';

type Phase = 'header' | 'body' | 'trailer' | 'between' | 'trailing';

/** All that is not in the shared memory; plain data, for another thread to go on with. */
export interface GunzipState {
  readonly phase: 'body';
  readonly crc: number;
  readonly length: number;
}

const TRAILER = 8;
/** Behind the library's state: some zeros, and room for what must not come out. */
const SCRATCH = 128;

export class Gunzip {
  readonly #raw: RawInflate;
  readonly #scratch: Region;
  #phase: Phase = 'header';
  #header = new GzipHeader();
  #trailer = Buffer.alloc(TRAILER);
  #trailerFill = 0;
  #crc = 0;
  /** Modulo 2³², as the format counts. */
  #length = 0;
  /** Of the last call. */
  taken = 0;
  made = 0;
  readonly checked = true;

  static readonly stateBytes = STATE_BYTES + SCRATCH;

  /** @param at offset in `memory` of `stateBytes` bytes */
  constructor(memory: NativeMemory, at: number, state?: GunzipState) {
    this.#raw = new RawInflate(memory, at);
    this.#scratch = regionOf(memory, at + STATE_BYTES, SCRATCH);
    if (state === undefined) return;
    this.#phase = state.phase;
    this.#crc = state.crc;
    this.#length = state.length;
  }

  /** Where another thread can take over; undefined while a header or a trailer is being read, which is for a few bytes only. */
  get state(): GunzipState | undefined {
    if (this.#phase !== 'body') return undefined;
    return { phase: 'body', crc: this.#crc, length: this.#length };
  }

  /**
   * Goes on until `output` is full from `outputAt` or `input` is used up from `inputAt`.
   * @throws CorruptData
   */
  decode(input: Region, inputAt: number, output: Region, outputAt: number): void {
    this.taken = 0;
    this.made = 0;
    // At the end of the input one call more tells whether the stream has ended with it.
    while (inputAt + this.taken < input.length && outputAt + this.made < output.length) {
      const at = inputAt + this.taken;
      if (this.#phase === 'body') this.#inflate(input, at, output, outputAt + this.made);
      else this.taken += this.#frame(input.bytes.subarray(at));
    }
  }

  /** There is no more input. @throws CorruptData if there should be */
  finish(): void {
    if (this.#phase === 'body') {
      // Bytes that a stream that has ended would not take: if it takes them, it has not.
      const { address } = this.#scratch;
      const outcome = this.#raw.inflate(address, TRAILER, address + BigInt(TRAILER), SCRATCH - TRAILER);
      if (outcome !== 'end' || this.#raw.taken > 0 || this.#raw.made > 0)
        throw new CorruptData('unexpected end of file');
      this.#endBody();
    }
    if (this.#phase === 'trailing') throw new CorruptData('trailing data');
    if (this.#phase !== 'between') throw new CorruptData('unexpected end of file');
  }

  #inflate(input: Region, at: number, output: Region, to: number): void {
    const outcome = this.#raw.inflate(
      input.address + BigInt(at),
      input.length - at,
      output.address + BigInt(to),
      output.length - to,
    );
    if (outcome === 'corrupt') throw new CorruptData('invalid deflate data');
    const { taken, made } = this.#raw;
    this.taken += taken;
    this.made += made;
    if (made > 0) this.#crc = this.#raw.crc32(this.#crc, output.address + BigInt(to), made);
    this.#length = (this.#length + made) >>> 0;
    if (outcome === 'end') this.#endBody();
  }

  #endBody(): void {
    this.#phase = 'trailer';
    this.#trailerFill = 0;
    let rest = this.#raw.rest();
    while (rest.length > 0) rest = rest.subarray(this.#frame(rest));
  }

  /** Whatever is not deflated data. @returns bytes taken */
  #frame(bytes: Buffer): number {
    switch (this.#phase) {
      case 'header': {
        const taken = this.#header.take(bytes);
        if (this.#header.done) this.#beginBody();
        return taken;
      }
      case 'trailer': {
        const taken = bytes.copy(this.#trailer, this.#trailerFill, 0, TRAILER - this.#trailerFill);
        this.#trailerFill += taken;
        if (this.#trailerFill === TRAILER) this.#endMember();
        return taken;
      }
      case 'between':
        // As Node has it: zeros are padding, anything else is the next member, which must be right then.
        this.#phase = bytes[0] === 0 ? 'trailing' : 'header';
        if (this.#phase === 'trailing') throw new CorruptData('trailing data');
        this.#header = new GzipHeader();
        return 0;
      default:
        throw new CorruptData('trailing data');
    }
  }

  #beginBody(): void {
    this.#phase = 'body';
    this.#crc = 0;
    this.#length = 0;
    this.#raw.reset();
  }

  #endMember(): void {
    if (this.#trailer.readUInt32LE(0) !== this.#crc >>> 0) throw new CorruptData('incorrect data check');
    if (this.#trailer.readUInt32LE(4) !== this.#length) throw new CorruptData('incorrect length check');
    this.#phase = 'between';
  }
}
