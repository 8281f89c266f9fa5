/** What an unpacker and its assistant share: who has the decoder, two rings, the archive's digest so far, and a note that goes along with it; see feed.ts. */

import { Failure, type FailureRecord } from 'troupe/plugin';
import type { DecoderState } from '../compression/decoder.ts';
import { SHA256_STATE } from '../digest/sha256.ts';

/** Compressed bytes that are read at once. */
export const PIECE = 256 << 10;
export const PIECES = 8;
/** Bytes of the archive that are passed on at once: few enough to be in the processor's cache still when they are hashed and written. */
export const CHUNK = 512 << 10;
export const CHUNKS = 8;
/** At the beginning of `bulk`: the decoder's own. */
export const STATE = 320 << 10;
/** Behind pieces and chunks: the state of the archive's digest. */
export const DIGEST = STATE + PIECE * PIECES + CHUNK * CHUNKS;
const NOTE = 1024;

/** Where in `bulk` a chunk of the ring lies. */
export function chunkAt(slot: number): number {
  return STATE + PIECE * PIECES + CHUNK * slot;
}

const TURN = 0;
export const RELEASE = 1;
/** Counters of the rings, from the last hand-over on. */
export const PIECES_READ = 2;
export const PIECES_HASHED = 3;
export const CHUNKS_MADE = 4;
export const CHUNKS_TAKEN = 5;
/** One more with each thing that the other side may wait for. */
export const ASSISTANT_MOVED = 6;
export const UNPACKER_MOVED = 7;
const NOTE_LENGTH = 8;
/** One more of the ring's counters. */
export const CHUNKS_HASHED = 9;
/** 1 while a thread is at the digest. */
export const HASHING = 10;
/** How much is in each piece, then in each chunk. */
const LENGTHS = 16;

const turns = { alone: 0, wanted: 1, handed: 2, returned: 3, closed: 4 } as const;
export type Turn = keyof typeof turns;

/** Both sides look up from a wait this often, in case that the other has died. */
const LOOK_UP_MS = 100;

/** What the two threads share, about 6.4 MiB, of which little is touched as long as nobody assists. */
export class FeedMemory {
  readonly buffers: { readonly bulk: SharedArrayBuffer; readonly words: SharedArrayBuffer };
  readonly words: Int32Array;
  readonly #note: Buffer;

  constructor(buffers?: FeedMemory['buffers']) {
    this.buffers = buffers ?? {
      bulk: new SharedArrayBuffer(DIGEST + SHA256_STATE),
      words: new SharedArrayBuffer(4 * (LENGTHS + PIECES + CHUNKS) + NOTE),
    };
    this.words = new Int32Array(this.buffers.words, 0, LENGTHS + PIECES + CHUNKS);
    this.#note = Buffer.from(this.buffers.words as unknown as ArrayBuffer, this.words.byteLength, NOTE);
  }

  /** For the next layer. Nobody may be using it. */
  reset(): void {
    this.words.fill(0);
  }

  change(from: Turn, to: Turn): boolean {
    const changed = Atomics.compareExchange(this.words, TURN, turns[from], turns[to]) === turns[from];
    if (changed) Atomics.notify(this.words, TURN);
    return changed;
  }

  is(turn: Turn): boolean {
    return Atomics.load(this.words, TURN) === turns[turn];
  }

  /** No assistant is taken any more; one that works on it stops. @returns whether one does */
  close(): boolean {
    const before = Atomics.exchange(this.words, TURN, turns.closed);
    Atomics.notify(this.words, TURN);
    this.moved(UNPACKER_MOVED);
    return before === turns.handed;
  }

  /** The assistant's thread is gone. If it had the decoder, nobody can go on: the unpacker is told, which would wait for ever. */
  lost(): void {
    if (!this.is('handed')) return;
    const why = new Failure('Unavailable', 'the thread that inflated the layer has ended: unavailable');
    this.write({ ...this.read(), failure: why.toRecord() });
    this.change('handed', 'returned');
    this.moved(ASSISTANT_MOVED);
  }

  /** Asks the assistant to give back what it has. */
  release(): void {
    Atomics.store(this.words, RELEASE, 1);
    Atomics.notify(this.words, TURN);
    this.moved(UNPACKER_MOVED);
  }

  pieceLength(index: number): number {
    return this.words[LENGTHS + index]!;
  }

  setPieceLength(index: number, length: number): void {
    this.words[LENGTHS + index] = length;
  }

  chunkLength(index: number): number {
    return this.words[LENGTHS + PIECES + index]!;
  }

  setChunkLength(index: number, length: number): void {
    this.words[LENGTHS + PIECES + index] = length;
  }

  get(counter: number): number {
    return Atomics.load(this.words, counter);
  }

  set(counter: number, value: number): void {
    Atomics.store(this.words, counter, value);
  }

  /** Waits for a turn other than `turn`, a moment at most. */
  waitTurn(turn: Turn): void {
    Atomics.wait(this.words, TURN, turns[turn], LOOK_UP_MS);
  }

  /** Waits for `counter` to be another than `seen`, a moment at most. */
  wait(counter: number, seen: number): void {
    Atomics.wait(this.words, counter, seen, LOOK_UP_MS);
  }

  /** @returns false when the other thread is inside */
  enter(word: number): boolean {
    return Atomics.compareExchange(this.words, word, 0, 1) === 0;
  }

  leave(word: number): void {
    Atomics.store(this.words, word, 0);
  }

  moved(counter: number): void {
    Atomics.add(this.words, counter, 1);
    Atomics.notify(this.words, counter);
  }

  write(note: Note): void {
    const text = JSON.stringify(note, (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
    this.words[NOTE_LENGTH] = this.#note.write(text);
  }

  read(): Note {
    const text = this.#note.toString('utf8', 0, this.words[NOTE_LENGTH]);
    return JSON.parse(text, (_, value) =>
      typeof value === 'string' && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value,
    ) as Note;
  }
}

/** Where the one stopped and the other goes on. */
export interface Note {
  readonly fd: number;
  readonly compression: 'gzip' | 'zstd';
  /** Of the file. */
  readonly offset: number;
  /** The piece that is being inflated, and what of it is left. */
  readonly piece: number;
  readonly at: number;
  readonly length: number;
  readonly decoder?: DecoderState | undefined;
  readonly ended?: boolean;
  readonly corrupt?: { readonly message: string; readonly kind: 'data' | 'memory' };
  readonly failure?: FailureRecord;
}
