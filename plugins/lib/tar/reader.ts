/**
 * A tar parser that is pushed bytes and calls back, synchronously: it runs in a pool thread between an inflater and the file system, and holds no more
 * than one header body.
 *
 * It reads what Go's archive/tar reads, because that is what every image was made and tried with: v7, ustar, star, GNU and pax; a global pax header is
 * reported and applied to nothing; entries without a body skip none whatever their size says; the archive ends at two zero blocks or where the stream
 * does. It is stricter in four places, each of which no tool writes: an extension header with no entry behind it, a NUL inside a GNU long name, more
 * than eight extension headers for one entry, and numbers beyond 2^53.
 */

import { Failure } from 'troupe/plugin';
import { type BlockFields, decodeBlock, isZeroBlock } from './block.ts';
import { Extensions } from './extension.ts';
import { BLOCK, type Fragment, gnuFields, type TarHeader, typeFlags } from './format.ts';
import { parseNumber } from './number.ts';
import { Malformed } from './pax.ts';
import { checkFragments, MapReader, readOldMap, storedSize } from './sparse.ts';

/** What a reader tells. A thrown error leaves the reader unusable. */
export interface TarEvents {
  /** A header is complete. Its body, if it has one, follows in `data` calls. */
  entry(header: TarHeader): void;
  /** Bytes of the current entry, to stand at `position` of the file. The memory is lent for the call only. */
  data(bytes: Uint8Array, position: number): void;
  /** The current entry is complete. */
  end(): void;
}

export interface TarLimits {
  /** Body of one extension header or sparse map, in bytes. */
  readonly headerBytes: number;
  /** A name or a link target, in bytes (PATH_MAX counts the NUL). */
  readonly nameBytes: number;
  readonly entries: number;
}

export const defaultLimits: TarLimits = { headerBytes: 1 << 20, nameBytes: 4096, entries: 10_000_000 };

type State = 'header' | 'extension' | 'old-map' | 'map' | 'body' | 'padding' | 'end';

export class TarReader {
  readonly #events: TarEvents;
  readonly #subject: string;
  readonly #limits: TarLimits;
  #state: State = 'header';
  /** Bytes of the archive that were taken so far. */
  #offset = 0;
  /** Of the last header, of an entry or in front of one: where what is malformed begins, in whatever pieces the archive comes. */
  #headerOffset = 0;
  #zeroBlocks = 0;
  #entries = 0;

  readonly #block = Buffer.alloc(BLOCK);
  #blockFill = 0;

  readonly #extensions: Extensions;
  #pending: TarHeader | undefined;
  #oldMap: Fragment[] = [];
  #oldMapBytes = 0;
  #map: MapReader | undefined;

  /** Bytes of the body that are still to come, and where the next one stands in the file. */
  #remaining = 0;
  #padding = 0;
  #position = 0;
  #fragments: readonly Fragment[] | undefined;
  #fragment = 0;
  #inFragment = 0;

  /** @param subject what is read, as it should stand in messages: `layer sha256:…` */
  constructor(events: TarEvents, subject = 'tar archive', limits: Partial<TarLimits> = {}) {
    this.#events = events;
    this.#subject = subject;
    this.#limits = { ...defaultLimits, ...limits };
    this.#extensions = new Extensions(this.#limits.headerBytes, this.#limits.nameBytes);
  }

  /** Entries reported so far, global headers not counted. */
  get entries(): number {
    return this.#entries;
  }

  /** True once the end-of-archive blocks were seen; bytes behind them are ignored. */
  get ended(): boolean {
    return this.#state === 'end';
  }

  /** @throws Failure InvalidArgument at the first malformation, ResourceExhausted beyond the budget of entries. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = 0;
    try {
      while (at < bytes.length && this.#state !== 'end') {
        const taken = this.#step(bytes, at);
        at += taken;
        this.#offset += taken;
      }
    } catch (error) {
      if (error instanceof Malformed) throw this.#invalid(error.message, this.#headerOffset);
      throw error;
    }
    this.#offset += bytes.length - at;
  }

  /** The stream has ended. @throws Failure InvalidArgument if it did so inside an entry. */
  finish(): void {
    if (this.#state === 'end') return;
    // Padding may be missing, as Go has it.
    const between = this.#state === 'padding' || (this.#state === 'header' && this.#blockFill === 0);
    if (!between) throw this.#invalid('unexpected end of the archive', this.#offset);
    if (this.#extensions.pending) throw this.#invalid('extension header without an entry', this.#headerOffset);
  }

  #step(bytes: Buffer, at: number): number {
    switch (this.#state) {
      case 'body':
        return this.#takeBody(bytes, at);
      case 'padding': {
        const taken = Math.min(this.#padding, bytes.length - at);
        this.#padding -= taken;
        if (this.#padding === 0) this.#state = 'header';
        return taken;
      }
      case 'extension': {
        const taken = this.#extensions.take(bytes, at);
        if (this.#extensions.complete) this.#endExtension();
        return taken;
      }
      default:
        return this.#takeBlock(bytes, at);
    }
  }

  /** Gathers one whole block, in place when the chunk has all of it, and hands it to the state that waits for it. */
  #takeBlock(bytes: Buffer, at: number): number {
    if (this.#blockFill === 0 && bytes.length - at >= BLOCK) {
      this.#onBlock(bytes.subarray(at, at + BLOCK), this.#offset);
      return BLOCK;
    }
    const taken = bytes.copy(this.#block, this.#blockFill, at, Math.min(bytes.length, at + BLOCK - this.#blockFill));
    this.#blockFill += taken;
    if (this.#blockFill === BLOCK) {
      this.#blockFill = 0;
      this.#onBlock(this.#block, this.#offset + taken - BLOCK);
    }
    return taken;
  }

  #onBlock(block: Buffer, offset: number): void {
    if (this.#state === 'header') this.#onHeader(block, offset);
    else if (this.#state === 'old-map') this.#onOldMap(block);
    else this.#onMap(block);
  }

  #onHeader(block: Buffer, offset: number): void {
    if (block[0] === 0 && isZeroBlock(block)) {
      if (this.#extensions.pending) throw new Malformed('extension header without an entry');
      if (++this.#zeroBlocks === 2) this.#state = 'end';
      return;
    }
    this.#headerOffset = offset;
    if (this.#zeroBlocks > 0) throw new Malformed('header behind a zero block');
    const decoded = decodeBlock(block);
    if (Extensions.is(decoded.typeFlag)) {
      this.#extensions.begin(decoded);
      this.#padding = padding(decoded.size);
      this.#state = 'extension';
      if (this.#extensions.complete) this.#endExtension();
      return;
    }
    const header = this.#extensions.merge(decoded, offset);
    if (decoded.typeFlag === typeFlags.gnuSparse) {
      if (decoded.dialect !== 'gnu') throw new Malformed('sparse entry that is not in GNU format');
      this.#beginOldMap(block, header, decoded);
    } else {
      this.#beginEntry(header);
    }
  }

  #endExtension(): void {
    this.#state = this.#padding > 0 ? 'padding' : 'header';
    const global = this.#extensions.end(this.#headerOffset);
    if (global === undefined) return;
    this.#events.entry(global);
    this.#events.end();
  }

  #beginEntry(header: TarHeader): void {
    this.#remaining = header.size;
    this.#padding = padding(header.size);
    const sparse = this.#extensions.sparse(header);
    if (sparse === undefined) {
      this.#report(header, undefined);
      return;
    }
    if (sparse.fragments !== undefined) {
      this.#report(sparse.header, sparse.fragments);
      return;
    }
    this.#pending = sparse.header;
    this.#map = new MapReader(this.#limits.headerBytes);
    this.#state = 'map';
    if (this.#remaining < BLOCK) throw new Malformed('sparse map is cut off');
  }

  #onMap(block: Buffer): void {
    this.#remaining -= BLOCK;
    const fragments = this.#map!.push(block);
    if (fragments === undefined) {
      if (this.#remaining < BLOCK) throw new Malformed('sparse map is cut off');
      return;
    }
    this.#map = undefined;
    this.#report(this.#pending!, fragments);
  }

  #beginOldMap(block: Buffer, header: TarHeader, decoded: BlockFields): void {
    const realSize = parseNumber(block, ...gnuFields.realSize);
    if (realSize === undefined || !Number.isSafeInteger(realSize) || realSize < 0) {
      throw new Malformed('size of a sparse file is not a number');
    }
    this.#remaining = decoded.size;
    this.#padding = padding(decoded.size);
    this.#oldMap = [];
    this.#oldMapBytes = 0;
    this.#pending = { ...header, size: realSize };
    if (readOldMap(block, 'header', this.#oldMap)) this.#state = 'old-map';
    else this.#report(this.#pending, this.#oldMap);
  }

  #onOldMap(block: Buffer): void {
    this.#oldMapBytes += BLOCK;
    if (this.#oldMapBytes > this.#limits.headerBytes) throw new Malformed('sparse map is too long');
    if (!readOldMap(block, 'block', this.#oldMap)) this.#report(this.#pending!, this.#oldMap);
  }

  #report(header: TarHeader, fragments: readonly Fragment[] | undefined): void {
    if (fragments !== undefined) {
      checkFragments(fragments, header.size);
      const stored = storedSize(fragments);
      if (stored !== this.#remaining) {
        throw new Malformed(`sparse map names ${stored} bytes, the entry has ${this.#remaining}`);
      }
    }
    if (++this.#entries > this.#limits.entries) {
      throw new Failure(
        'ResourceExhausted',
        `${this.#subject}: more than ${this.#limits.entries} entries at offset ${header.offset}: resource exhausted`,
      );
    }
    this.#extensions.clear();
    this.#pending = undefined;
    this.#fragments = fragments;
    this.#fragment = 0;
    this.#inFragment = 0;
    this.#position = 0;
    this.#events.entry(fragments === undefined ? header : { ...header, sparse: fragments });
    if (this.#remaining > 0) this.#state = 'body';
    else this.#endBody();
  }

  #takeBody(bytes: Buffer, at: number): number {
    const taken = Math.min(this.#remaining, bytes.length - at);
    const part = bytes.subarray(at, at + taken);
    if (this.#fragments === undefined) {
      this.#events.data(part, this.#position);
      this.#position += taken;
    } else {
      this.#spread(part, this.#fragments);
    }
    this.#remaining -= taken;
    if (this.#remaining === 0) this.#endBody();
    return taken;
  }

  /** Puts the stored bytes of a sparse file where its map says. */
  #spread(part: Buffer, fragments: readonly Fragment[]): void {
    let at = 0;
    while (at < part.length) {
      const { offset, length } = fragments[this.#fragment]!;
      const taken = Math.min(length - this.#inFragment, part.length - at);
      if (taken > 0) this.#events.data(part.subarray(at, at + taken), offset + this.#inFragment);
      at += taken;
      this.#inFragment += taken;
      if (this.#inFragment === length) {
        this.#fragment++;
        this.#inFragment = 0;
      }
    }
  }

  #endBody(): void {
    this.#state = this.#padding > 0 ? 'padding' : 'header';
    this.#events.end();
  }

  #invalid(what: string, offset: number): Failure {
    return new Failure('InvalidArgument', `${this.#subject}: ${what} at offset ${offset}: invalid argument`);
  }
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}
