/**
 * Raw deflate by Intel's ISA-L (`libisal.so.2`, Debian `libisal2`): two to three times as fast as zlib.
 *
 * Of `struct inflate_state` (igzip_lib.h) only the fields at its beginning are touched, which have stood where they are in every release since 2.16; those
 * behind the tables move from version to version. So neither the library's own gzip framing is used nor its `block_state`: that a stream has ended is
 * told by a call that had input and room for output and left some of both. Bytes that the library had loaded into its bit buffer by then belong to
 * whatever follows the stream, and are handed back. What is believed of the layout is tried at the load with a small stream; a library that fails it is
 * as good as none.
 */

import { crc32, deflateRawSync } from 'node:zlib';
import { type ForeignLibrary, openLibrary } from 'troupe/sys';
import { NativeMemory, type Region, regionOf } from './memory.ts';

/** 87,368 bytes in 2.30; later versions may need somewhat more. */
export const STATE_BYTES = 256 << 10;

/** Offsets in struct inflate_state. */
const NEXT_OUT = 0;
const AVAIL_OUT = 8;
const NEXT_IN = 16;
const READ_IN = 24;
const AVAIL_IN = 32;
const READ_IN_LENGTH = 36;

interface Isal {
  readonly library: ForeignLibrary;
  init(state: bigint): undefined;
  inflate(state: bigint): number;
  crc32(seed: number, bytes: bigint, length: number): number;
}

let loaded: Isal | null | undefined;

function load(): Isal | undefined {
  if (loaded === undefined) loaded = open() ?? null;
  return loaded ?? undefined;
}

function open(): Isal | undefined {
  const library = openLibrary('libisal.so.2');
  if (library === undefined) return undefined;
  try {
    const isal: Isal = {
      library,
      init: library.bind('isal_inflate_init', 'void', ['uint64_t']),
      inflate: library.bind('isal_inflate', 'int', ['uint64_t']),
      crc32: library.bind('crc32_gzip_refl', 'uint32_t', ['uint32_t', 'uint64_t', 'uint64_t']),
    };
    return works(isal) ? isal : undefined;
  } catch {
    return undefined;
  }
}

export function isalAvailable(): boolean {
  return load() !== undefined;
}

/** The library's memory of its own kind, for states and for what is inflated from and into. */
export function isalMemory(buffer: SharedArrayBuffer): NativeMemory {
  return new NativeMemory(load()!.library, buffer);
}

/** One deflate stream after another. All that it remembers is in `memory`, so another thread can go on with it. */
export class RawInflate {
  readonly #isal: Isal;
  readonly #memory: NativeMemory;
  readonly #state: bigint;
  readonly #at: number;
  /** Of the last call: bytes of input that it used, bytes of output that it made. */
  taken = 0;
  made = 0;

  /** @param at offset in `memory` of STATE_BYTES bytes, on a multiple of 64 */
  constructor(memory: NativeMemory, at: number) {
    this.#isal = load()!;
    this.#memory = memory;
    this.#at = at;
    this.#state = memory.address(at);
  }

  /** Begins a stream. */
  reset(): void {
    this.#isal.init(this.#state);
  }

  /**
   * @returns `end`: the stream has ended, `rest` tells what was read beyond it; `more`: it wants more input or more room; `corrupt`
   */
  inflate(input: bigint, inputLength: number, output: bigint, room: number): 'end' | 'more' | 'corrupt' {
    const { view } = this.#memory;
    const at = this.#at;
    view.setBigUint64(at + NEXT_OUT, output, true);
    view.setUint32(at + AVAIL_OUT, room, true);
    view.setBigUint64(at + NEXT_IN, input, true);
    view.setUint32(at + AVAIL_IN, inputLength, true);
    const result = this.#isal.inflate(this.#state);
    const left = view.getUint32(at + AVAIL_IN, true);
    this.taken = inputLength - left;
    this.made = room - view.getUint32(at + AVAIL_OUT, true);
    if (result < 0) return 'corrupt';
    return left > 0 && this.made < room ? 'end' : 'more';
  }

  /** After `end`: whole bytes of input that were taken beyond the stream's last, oldest first; at most eight. */
  rest(): Buffer {
    const { view } = this.#memory;
    const bits = view.getInt32(this.#at + READ_IN_LENGTH, true);
    const whole = Buffer.alloc(8);
    whole.writeBigUInt64LE(view.getBigUint64(this.#at + READ_IN, true) >> BigInt(bits & 7));
    return whole.subarray(0, bits >> 3);
  }

  crc32(seed: number, bytes: bigint, length: number): number {
    return this.#isal.crc32(seed, bytes, length);
  }
}

/** Two streams behind each other with something behind them, a few bytes at a time: ends and what is handed back must come out right. */
function works(isal: Isal): boolean {
  loaded = isal;
  const plain = Buffer.from('what is inflated must be what was deflated, and nothing else '.repeat(40));
  const behind = Buffer.from('0123456789abcdef');
  const memory = isalMemory(new SharedArrayBuffer(STATE_BYTES + (16 << 10)));
  const [input, output] = [regionOf(memory, STATE_BYTES, 8 << 10), regionOf(memory, STATE_BYTES + (8 << 10), 8 << 10)];
  for (const options of [{ level: 9 }, { level: 0 }, { strategy: 4 }]) {
    const packed = deflateRawSync(plain, options);
    Buffer.concat([packed, behind]).copy(input.bytes);
    const inflate = new RawInflate(memory, 0);
    inflate.reset();
    const made = tryOut(inflate, input, packed.length + behind.length, output);
    if (made === undefined || !output.bytes.subarray(0, made.length).equals(plain)) return false;
    if (!made.rest.equals(behind)) return false;
    if (inflate.crc32(0, output.address, made.length) !== crc32(plain)) return false;
  }
  return true;
}

function tryOut(
  inflate: RawInflate,
  input: Region,
  length: number,
  output: Region,
): { length: number; rest: Buffer } | undefined {
  let [at, made] = [0, 0];
  for (let step = 0; step < 10_000; step++) {
    const given = Math.min(5, length - at);
    const room = Math.min(7, output.length - made);
    const outcome = inflate.inflate(input.address + BigInt(at), given, output.address + BigInt(made), room);
    at += inflate.taken;
    made += inflate.made;
    if (outcome === 'corrupt') return undefined;
    if (outcome === 'end')
      return { length: made, rest: Buffer.concat([inflate.rest(), input.bytes.subarray(at, length)]) };
  }
  return undefined;
}
