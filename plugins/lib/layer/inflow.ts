/** A blob's file read and inflated into shared memory. Whoever has the decoder has one of these, and makes it from the note that the other left. */

import { readSync } from 'node:fs';
import { CorruptData } from '../compression/corrupt.ts';
import { type Decoder, decoderFor, decoderMemory, stateBytes } from '../compression/decoder.ts';
import { type Region, regionOf } from '../compression/memory.ts';
import type { Arrival } from './arrival.ts';
import { CHUNK, CHUNKS, chunkAt, type FeedMemory, type Note, PIECE, PIECES, STATE } from './feed-memory.ts';

export interface PieceEvents {
  /** A piece will be overwritten. */
  before?(): void;
  /** It has bytes, which will be inflated. */
  read(index: number, bytes: Buffer): void;
}

export class Inflow {
  readonly #fd: number;
  readonly #compression: 'gzip' | 'zstd';
  readonly #arrival: Arrival | undefined;
  readonly decoder: Decoder;
  readonly pieces: readonly Region[];
  readonly chunks: readonly Region[];
  #offset: number;
  #piece: number;
  #at: number;
  #length: number;
  ended: boolean;

  /** @param arrival of a file that still grows */
  constructor(memory: FeedMemory, note: Note, arrival?: Arrival) {
    const native = decoderMemory(note.compression, memory.buffers.bulk);
    if (stateBytes(note.compression) > STATE) throw new RangeError('state of a decoder');
    this.#fd = note.fd;
    this.#compression = note.compression;
    this.#arrival = arrival;
    this.decoder = decoderFor(note.compression, native, note.decoder);
    this.pieces = Array.from({ length: PIECES }, (_, i) => regionOf(native, STATE + i * PIECE, PIECE));
    this.chunks = Array.from({ length: CHUNKS }, (_, i) => regionOf(native, chunkAt(i), CHUNK));
    this.#offset = note.offset;
    this.#piece = note.piece;
    this.#at = note.at;
    this.#length = note.length;
    this.ended = note.ended === true;
  }

  /** The piece that will be read next. */
  get next(): number {
    return (this.#piece + 1) % PIECES;
  }

  get note(): Note {
    return {
      fd: this.#fd,
      compression: this.#compression,
      offset: this.#offset,
      piece: this.#piece,
      at: this.#at,
      length: this.#length,
      decoder: this.decoder.state,
      ended: this.ended,
    };
  }

  /** Fills a chunk, or less of it at the end. @returns bytes. @throws CorruptData */
  fill(chunk: Region, pieces: PieceEvents): number {
    let made = 0;
    while (made < chunk.length && !this.ended) {
      const piece = this.pieces[this.#piece]!;
      this.decoder.decode({ ...piece, length: this.#length }, this.#at, chunk, made);
      this.#at += this.decoder.taken;
      made += this.decoder.made;
      if (made === chunk.length) break;
      if (this.#at === this.#length) this.#read(pieces);
      else if (this.decoder.taken + this.decoder.made === 0) throw new CorruptData('no progress');
    }
    return made;
  }

  #read(events: PieceEvents): void {
    const { next } = this;
    events.before?.();
    this.#arrival?.wait(this.#offset);
    const { bytes } = this.pieces[next]!;
    const length = readSync(this.#fd, bytes, 0, PIECE, this.#offset);
    if (length === 0) {
      this.decoder.finish();
      this.ended = true;
      return;
    }
    this.#piece = next;
    this.#offset += length;
    this.#at = 0;
    this.#length = length;
    events.read(next, bytes.subarray(0, length));
  }
}
