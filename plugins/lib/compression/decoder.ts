/**
 * Decoders that a thread drives by itself, from memory to memory: gzip by ISA-L, zstd by Node's own library. Where a library is missing there is none for
 * its format, and node:zlib's streams do it (decompress.ts), on threads of their own.
 */

import type { Compression, Unsupported } from './format.ts';
import { Gunzip, type GunzipState } from './gunzip.ts';
import { isalAvailable, isalMemory } from './isal.ts';
import type { NativeMemory, Region } from './memory.ts';
import { Unzstd, type UnzstdState, zstdAvailable, zstdMemory } from './unzstd.ts';

/** `auto`: the fastest that is there; `zlib`: Node's own, for both formats. */
export type Inflate = 'auto' | 'zlib';

export interface Decoder {
  /** Bytes that the last `decode` used and made. */
  readonly taken: number;
  readonly made: number;
  /** What it has made so far has been compared, or will be at the next end of a member or frame, with checksums that came with it. */
  readonly checked: boolean;
  /** Where another thread can go on with the same memory; undefined where it cannot at this moment. */
  readonly state: DecoderState | undefined;
  /** @throws CorruptData */
  decode(input: Region, inputAt: number, output: Region, outputAt: number): void;
  /** The input has ended. @throws CorruptData */
  finish(): void;
  /** Gives back what it holds. The last of all threads calls it. */
  free?(): void;
}

export type DecoderState = GunzipState | UnzstdState;

/** What unpacks gzip and zstd in this process: shown to whoever asks. */
export function engines(inflate: Inflate): { readonly gzip: string; readonly zstd: string } {
  return {
    gzip: inflate === 'auto' && isalAvailable() ? 'isa-l' : 'node:zlib',
    zstd: inflate === 'auto' && zstdAvailable() ? 'zstd' : 'node:zlib',
  };
}

/** Whether `decoderFor` has one. */
export function hasDecoder(compression: Compression | Unsupported, inflate: Inflate): compression is 'gzip' | 'zstd' {
  if (inflate === 'zlib') return false;
  return compression === 'gzip' ? isalAvailable() : compression === 'zstd' && zstdAvailable();
}

export function decoderMemory(compression: 'gzip' | 'zstd', buffer: SharedArrayBuffer): NativeMemory {
  return compression === 'gzip' ? isalMemory(buffer) : zstdMemory(buffer);
}

/** Bytes at the beginning of the memory that the decoder has for itself. */
export function stateBytes(compression: 'gzip' | 'zstd'): number {
  return compression === 'gzip' ? Gunzip.stateBytes : Unzstd.stateBytes;
}

/** @param state of the decoder that another thread had on this memory */
export function decoderFor(compression: 'gzip' | 'zstd', memory: NativeMemory, state?: DecoderState): Decoder {
  return compression === 'gzip'
    ? new Gunzip(memory, 0, state as GunzipState | undefined)
    : new Unzstd(memory, 0, state as UnzstdState | undefined);
}
