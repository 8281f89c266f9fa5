/**
 * The upper half of an unpack: a blob's bytes read, hashed and inflated, a chunk at a time.
 *
 * The thread that unpacks does that itself, until another thread that has nothing to do offers to. Then the decoder changes hands, in the middle of the
 * stream, since all that it remembers lies in shared memory or is a few numbers; from there on the two work side by side through two rings:
 *
 *   assistant   reads the file → pieces ──┬→ inflates → chunks ─┬→ hashes
 *   unpacker                              └→ hashes             └→ parses, writes, hashes
 *
 * and back again, when the assistant is needed for a layer that waits. The hash of the blob stays with the unpacker: Node's hashes cannot move. That of the
 * archive can, and is made by the one that would wait otherwise.
 *
 *   alone → wanted → handed → returned → alone …          closed, whatever was before, when the unpacker has come to its end
 */

import type { Hash } from 'node:crypto';
import { Failure } from 'troupe/plugin';
import { CorruptData } from '../compression/corrupt.ts';
import { sharedSha256Available } from '../digest/sha256.ts';
import type { Region } from '../compression/memory.ts';
import { type ArchiveDigest, FeedDigest, LocalDigest } from './archive-digest.ts';
import type { Arrival } from './arrival.ts';
import {
  ASSISTANT_MOVED,
  CHUNKS,
  CHUNKS_HASHED,
  CHUNKS_MADE,
  CHUNKS_TAKEN,
  type FeedMemory,
  PIECES,
  PIECES_HASHED,
  PIECES_READ,
  RELEASE,
  UNPACKER_MOVED,
} from './feed-memory.ts';
import { Inflow } from './inflow.ts';

const PATIENCE_MS = 30_000;

/** The unpacker's side. */
export class Feed {
  readonly #memory: FeedMemory;
  readonly #hash: Hash | undefined;
  readonly #arrival: Arrival | undefined;
  readonly #digest: FeedDigest | undefined;
  /** Of the chunks: to be given each of them before the next is asked for. */
  readonly digest: ArchiveDigest;
  #inflow: Inflow;
  /** Compressed bytes so far. */
  size = 0;

  /**
   * @param hash is given the compressed bytes, in order
   * @param arrival of a file that still grows: nobody assists before it is there
   */
  constructor(memory: FeedMemory, compression: 'gzip' | 'zstd', fd: number, hash: Hash | undefined, arrival?: Arrival) {
    this.#memory = memory;
    this.#hash = hash;
    this.#arrival = arrival;
    this.#digest = sharedSha256Available() ? new FeedDigest(memory) : undefined;
    this.digest = this.#digest ?? new LocalDigest();
    const start = { fd, compression, offset: 0, piece: PIECES - 1, at: 0, length: 0 };
    this.#inflow = new Inflow(memory, start, arrival);
  }

  /** All that was made has been compared with checksums of its own. */
  get checked(): boolean {
    return this.#inflow.decoder.checked;
  }

  /** Each is good until the next is asked for. @throws CorruptData */
  *chunks(): Generator<Buffer, void, undefined> {
    this.#digest?.next(undefined);
    const [chunk] = this.#inflow.chunks as [Region];
    while (!this.#inflow.ended) {
      if (this.#memory.is('wanted') && this.#handOver()) {
        yield* this.#received();
        continue;
      }
      const length = this.#inflow.fill(chunk, { read: (_, bytes) => this.#count(bytes) });
      if (length > 0) yield chunk.bytes.subarray(0, length);
    }
  }

  /** The end, also in the middle. Waits until an assistant has let go. */
  close(): void {
    if (this.#memory.close()) {
      const until = Date.now() + PATIENCE_MS;
      while (!this.#memory.is('returned')) {
        // A thread that does not answer still has the decoder: better to lose that than to pull it away.
        if (Date.now() > until) return;
        this.#memory.waitTurn('closed');
      }
    }
    this.#inflow.decoder.free?.();
  }

  #count(bytes: Buffer): void {
    this.size += bytes.length;
    this.#hash?.update(bytes);
  }

  #handOver(): boolean {
    const { note } = this.#inflow;
    if (note.decoder === undefined || this.#arrival?.complete === false) return false;
    for (const counter of [PIECES_READ, PIECES_HASHED, CHUNKS_MADE, CHUNKS_TAKEN, CHUNKS_HASHED])
      this.#memory.set(counter, 0);
    this.#memory.write(note);
    return this.#memory.change('wanted', 'handed');
  }

  /** Chunks that the assistant made, until it gives back. */
  *#received(): Generator<Buffer, void, undefined> {
    const memory = this.#memory;
    const { chunks, pieces, next } = this.#inflow;
    for (let [taken, hashed] = [0, 0]; ; ) {
      const moved = memory.get(ASSISTANT_MOVED);
      // Looked at first: what was made before it gave back is there then.
      const returned = memory.is('returned');
      for (const read = memory.get(PIECES_READ); hashed < read; ) {
        const slot = (next + hashed) % PIECES;
        this.#count(pieces[slot]!.bytes.subarray(0, memory.pieceLength(slot)));
        memory.set(PIECES_HASHED, ++hashed);
        memory.moved(UNPACKER_MOVED);
      }
      if (taken < memory.get(CHUNKS_MADE)) {
        const slot = taken % CHUNKS;
        this.#digest?.next(taken);
        yield chunks[slot]!.bytes.subarray(0, memory.chunkLength(slot));
        memory.set(CHUNKS_TAKEN, ++taken);
        memory.moved(UNPACKER_MOVED);
      } else if (returned) break;
      else memory.wait(ASSISTANT_MOVED, moved);
    }
    this.#digest?.next(undefined);
    this.#takeBack();
  }

  #takeBack(): void {
    const note = this.#memory.read();
    if (note.failure !== undefined) throw Failure.fromRecord(note.failure);
    if (note.corrupt !== undefined) throw new CorruptData(note.corrupt.message, note.corrupt.kind);
    this.#inflow = new Inflow(this.#memory, note);
    this.#memory.set(RELEASE, 0);
    this.#memory.change('returned', this.#inflow.ended ? 'closed' : 'alone');
  }
}
