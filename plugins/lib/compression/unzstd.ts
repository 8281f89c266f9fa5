/**
 * zstd (RFC 8878) by the library that Node brings, called directly: a piece at a time and without waiting. Frames that follow each other are joined, skippable ones skipped.
 * The context is memory of the library's own: whoever made it frees it, whichever thread has used it meanwhile.
 */

import { type ForeignLibrary, ownLibrary } from 'troupe/sys';
import { CorruptData, ZSTD_WINDOW_LOG } from './corrupt.ts';
import { NativeMemory, type Region } from './memory.ts';

/** ZSTD_d_windowLogMax (zstd.h). */
const WINDOW_LOG_MAX = 100;
/** zstd_errors.h; these have had their numbers since 1.3.1. */
const PREFIX_UNKNOWN = 10;
const WINDOW_TOO_LARGE = 16;
const OUT_OF_MEMORY = 64;

interface Zstd {
  readonly library: ForeignLibrary;
  create(): number | bigint;
  free(context: bigint): number | bigint;
  set(context: bigint, parameter: number, value: number): number | bigint;
  /** Buffers: address, size, position, 8 bytes each. */
  decompress(context: bigint, output: bigint, input: bigint): number | bigint;
}

let loaded: Zstd | null | undefined;

function load(): Zstd | undefined {
  if (loaded === undefined) loaded = open() ?? null;
  return loaded ?? undefined;
}

function open(): Zstd | undefined {
  try {
    const library = ownLibrary();
    return {
      library,
      create: library.bind('ZSTD_createDCtx', 'uint64_t', []),
      free: library.bind('ZSTD_freeDCtx', 'uint64_t', ['uint64_t']),
      set: library.bind('ZSTD_DCtx_setParameter', 'uint64_t', ['uint64_t', 'int', 'int']),
      decompress: library.bind('ZSTD_decompressStream', 'uint64_t', ['uint64_t', 'uint64_t', 'uint64_t']),
    };
  } catch {
    // A Node that was linked against a shared library.
    return undefined;
  }
}

export function zstdAvailable(): boolean {
  return load() !== undefined;
}

export function zstdMemory(buffer: SharedArrayBuffer): NativeMemory {
  return new NativeMemory(load()!.library, buffer);
}

export interface UnzstdState {
  readonly context: bigint;
  readonly inFrame: boolean;
  readonly frames: number;
  readonly checked: boolean;
  readonly seen: number;
  readonly skippable: boolean;
}

/** From the magic to the descriptor of a frame, and its bit for a checksum behind the frame (RFC 8878, 3.1.1.1.1). */
const DESCRIPTOR_END = 5;
const CHECKSUM = 0x04;

/** Whether a stream begins with a frame that has a checksum, which the library compares. */
export function beginsChecked(head: Uint8Array): boolean {
  return head.length >= DESCRIPTOR_END && !isSkippable(head[0]!) && (head[DESCRIPTOR_END - 1]! & CHECKSUM) !== 0;
}

/** By the first byte of a frame of either kind. */
function isSkippable(first: number): boolean {
  return (first & 0xf0) === 0x50;
}

export class Unzstd {
  readonly #zstd: Zstd;
  readonly #memory: NativeMemory;
  readonly #at: number;
  readonly #context: bigint;
  #inFrame: boolean;
  #frames: number;
  #checked: boolean;
  /** Bytes of this frame's header that have been looked at. */
  #seen: number;
  #skippable: boolean;
  /** Of the last call. */
  taken = 0;
  made = 0;

  /** Two buffer structs. */
  static readonly stateBytes = 64;

  /** @param at offset in `memory` of `stateBytes` bytes */
  constructor(memory: NativeMemory, at: number, state?: UnzstdState) {
    this.#zstd = load()!;
    this.#memory = memory;
    this.#at = at;
    this.#context = state?.context ?? BigInt(this.#zstd.create());
    this.#inFrame = state?.inFrame ?? false;
    this.#frames = state?.frames ?? 0;
    this.#checked = state?.checked ?? true;
    this.#seen = state?.seen ?? 0;
    this.#skippable = state?.skippable ?? false;
    if (this.#context === 0n) throw new CorruptData('no memory for a context', 'memory');
    if (state === undefined) this.#zstd.set(this.#context, WINDOW_LOG_MAX, ZSTD_WINDOW_LOG);
  }

  get state(): UnzstdState {
    return {
      context: this.#context,
      inFrame: this.#inFrame,
      frames: this.#frames,
      checked: this.#checked,
      seen: this.#seen,
      skippable: this.#skippable,
    };
  }

  /** All frames so far have checksums. */
  get checked(): boolean {
    return this.#checked;
  }

  /** @throws CorruptData */
  decode(input: Region, inputAt: number, output: Region, outputAt: number): void {
    const { view } = this.#memory;
    const [out, into] = [this.#at, this.#at + 24];
    view.setBigUint64(out, output.address, true);
    view.setBigUint64(out + 8, BigInt(output.length), true);
    view.setBigUint64(out + 16, BigInt(outputAt), true);
    view.setBigUint64(into, input.address, true);
    view.setBigUint64(into + 8, BigInt(input.length), true);
    view.setBigUint64(into + 16, BigInt(inputAt), true);
    let [from, to] = [inputAt, outputAt];
    // Also without input while there is room: what the library holds back comes out then.
    for (let stuck = false; to < output.length && !stuck; ) {
      if (from === input.length && !this.#inFrame) break;
      const result = this.#zstd.decompress(this.#context, this.#memory.address(out), this.#memory.address(into));
      if (typeof result === 'bigint') throw this.#problem(-Number(BigInt.asIntN(64, result)));
      const [madeTo, takenTo] = [Number(view.getBigUint64(out + 16, true)), Number(view.getBigUint64(into + 16, true))];
      this.#look(input.bytes, from, takenTo);
      if (result === 0 && takenTo > from) {
        this.#frames++;
        this.#seen = 0;
      }
      this.#inFrame = result !== 0;
      stuck = madeTo === to && takenTo === from;
      [from, to] = [takenTo, madeTo];
    }
    this.taken = from - inputAt;
    this.made = to - outputAt;
  }

  /** There is no more input. @throws CorruptData if there should be */
  finish(): void {
    if (this.#inFrame || this.#frames === 0) throw new CorruptData('unexpected end of file');
  }

  /** The context is gone; nothing of this may be called any more, in any thread. */
  free(): void {
    this.#zstd.free(this.#context);
  }

  /** At bytes of a frame. A call of the library never goes on to the next one. */
  #look(bytes: Buffer, from: number, to: number): void {
    for (let at = from; at < to && this.#seen < DESCRIPTOR_END; at++, this.#seen++) {
      if (this.#seen === 0) this.#skippable = isSkippable(bytes[at]!);
      if (this.#seen === DESCRIPTOR_END - 1 && !this.#skippable && (bytes[at]! & CHECKSUM) === 0) this.#checked = false;
    }
  }

  #problem(code: number): CorruptData {
    if (code === WINDOW_TOO_LARGE) return new CorruptData(`window is larger than ${1 << (ZSTD_WINDOW_LOG - 20)} MiB`);
    if (code === PREFIX_UNKNOWN && this.#frames > 0) return new CorruptData('trailing data');
    if (code === OUT_OF_MEMORY) return new CorruptData('no memory for the window', 'memory');
    return new CorruptData('invalid data');
  }
}
