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
import { BLOCK, entryType, type Fragment, gnuFields, isHeaderOnly, type TarHeader, typeFlags } from './format.ts';
import { parseNumber } from './number.ts';
import {
  Malformed,
  type PaxRecords,
  parseInteger,
  parsePax,
  parseSize,
  parseSparseList,
  parseTime,
  pairs,
  printable,
  xattrsOf,
} from './pax.ts';
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

const EXTENSIONS = 8;
const EMPTY_XATTRS: ReadonlyMap<string, Buffer> = new Map();

type State = 'header' | 'extension' | 'old-map' | 'map' | 'body' | 'padding' | 'end';

export class TarReader {
  readonly #events: TarEvents;
  readonly #subject: string;
  readonly #limits: TarLimits;
  #state: State = 'header';
  /** Bytes of the archive that were taken so far. */
  #offset = 0;
  #entryOffset = 0;
  #zeroBlocks = 0;
  #entries = 0;

  readonly #block = Buffer.alloc(BLOCK);
  #blockFill = 0;

  #extension: { flag: string; body: Buffer; fill: number } | undefined;
  #extensions = 0;
  #pax: PaxRecords | undefined;
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

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
      if (error instanceof Malformed) throw this.#invalid(error.message);
      throw error;
    }
    this.#offset += bytes.length - at;
  }

  /** The stream has ended. @throws Failure InvalidArgument if it did so inside an entry. */
  finish(): void {
    if (this.#state === 'end' || this.#state === 'padding') return;
    if (this.#state !== 'header' || this.#blockFill > 0) throw this.#invalid('unexpected end of the archive');
    if (this.#extensions > 0) throw this.#invalid('extension header without an entry');
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
      case 'extension':
        return this.#takeExtension(bytes, at);
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
      if (this.#extensions > 0) throw new Malformed('extension header without an entry');
      if (++this.#zeroBlocks === 2) this.#state = 'end';
      return;
    }
    this.#entryOffset = offset;
    if (this.#zeroBlocks > 0) throw new Malformed('header behind a zero block');
    const decoded = decodeBlock(block);
    switch (decoded.typeFlag) {
      case typeFlags.pax:
      case typeFlags.paxGlobal:
      case typeFlags.gnuLongName:
      case typeFlags.gnuLongLink:
        this.#beginExtension(decoded);
        return;
    }
    this.#pending = this.#merge(decoded, offset);
    if (decoded.typeFlag === typeFlags.gnuSparse) {
      if (decoded.dialect !== 'gnu') throw new Malformed('sparse entry that is not in GNU format');
      this.#beginOldMap(block, this.#pending, decoded);
    } else {
      this.#beginEntry(this.#pending, decoded);
    }
  }

  // Extension headers: bodies that describe the entry behind them.

  #beginExtension(decoded: BlockFields): void {
    const { size, typeFlag } = decoded;
    if (size < 0) throw new Malformed('size is negative');
    if (size > this.#limits.headerBytes) throw new Malformed(`header body of ${size} bytes is too long`);
    if (++this.#extensions > EXTENSIONS) throw new Malformed('too many extension headers for one entry');
    this.#extension = { flag: typeFlag, body: Buffer.allocUnsafe(size), fill: 0 };
    this.#padding = padding(size);
    this.#state = 'extension';
    if (size === 0) this.#endExtension();
  }

  #takeExtension(bytes: Buffer, at: number): number {
    const extension = this.#extension!;
    const taken = bytes.copy(extension.body, extension.fill, at);
    extension.fill += taken;
    if (extension.fill === extension.body.length) this.#endExtension();
    return taken;
  }

  #endExtension(): void {
    const { flag, body } = this.#extension!;
    this.#extension = undefined;
    this.#state = this.#padding > 0 ? 'padding' : 'header';
    if (flag === typeFlags.gnuLongName) this.#longName = longName(body);
    else if (flag === typeFlags.gnuLongLink) this.#longLink = longName(body);
    else if (flag === typeFlags.pax) this.#pax = parsePax(body);
    else this.#reportGlobal(body);
  }

  #reportGlobal(body: Buffer): void {
    const { records } = parsePax(body);
    const name = records.get('path') ?? Buffer.alloc(0);
    this.#clearExtensions();
    this.#events.entry({
      type: 'global',
      typeFlag: typeFlags.paxGlobal,
      name,
      linkName: Buffer.alloc(0),
      size: 0,
      mode: 0,
      uid: 0,
      gid: 0,
      userName: Buffer.alloc(0),
      groupName: Buffer.alloc(0),
      mtime: { seconds: 0, nanoseconds: 0 },
      atime: undefined,
      ctime: undefined,
      devMajor: 0,
      devMinor: 0,
      xattrs: EMPTY_XATTRS,
      sparse: undefined,
      offset: this.#entryOffset,
    });
    this.#events.end();
  }

  #clearExtensions(): void {
    this.#extensions = 0;
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#pax = undefined;
  }

  /** Lays the extension headers over the block: pax first, then GNU names, as Go does. Empty values leave the block's own. */
  #merge(decoded: BlockFields, offset: number): TarHeader {
    let xattrs = EMPTY_XATTRS;
    const records = this.#pax?.records;
    if (records !== undefined) {
      const given = (key: string): string | undefined => records.get(key)?.toString('latin1') || undefined;
      decoded.name = nonEmpty(records.get('path')) ?? decoded.name;
      decoded.linkName = nonEmpty(records.get('linkpath')) ?? decoded.linkName;
      decoded.userName = nonEmpty(records.get('uname')) ?? decoded.userName;
      decoded.groupName = nonEmpty(records.get('gname')) ?? decoded.groupName;
      const { uid, gid, size, mtime, atime, ctime } = Object.fromEntries(
        ['uid', 'gid', 'size', 'mtime', 'atime', 'ctime'].map((key) => [key, given(key)]),
      );
      if (uid !== undefined) decoded.uid = parseInteger(uid);
      if (gid !== undefined) decoded.gid = parseInteger(gid);
      if (size !== undefined) decoded.size = parseInteger(size);
      if (mtime !== undefined) decoded.mtime = parseTime(mtime);
      if (atime !== undefined) decoded.atime = parseTime(atime);
      if (ctime !== undefined) decoded.ctime = parseTime(ctime);
      xattrs = xattrsOf(records);
    }
    if (this.#longName !== undefined && this.#longName.length > 0) decoded.name = this.#longName;
    if (this.#longLink !== undefined && this.#longLink.length > 0) decoded.linkName = this.#longLink;
    this.#checkFields(decoded);

    // v7 has no flag for directories: a slash at the end of a name with flag NUL is one.
    const isOldDirectory = decoded.typeFlag === '\0' && decoded.name.at(-1) === 0x2f;
    const type = isOldDirectory ? 'directory' : entryType(decoded.typeFlag);
    return {
      type,
      typeFlag: decoded.typeFlag,
      name: decoded.name,
      linkName: decoded.linkName,
      size: isHeaderOnly(type) ? 0 : decoded.size,
      mode: decoded.mode,
      uid: decoded.uid,
      gid: decoded.gid,
      userName: decoded.userName,
      groupName: decoded.groupName,
      mtime: decoded.mtime,
      atime: decoded.atime,
      ctime: decoded.ctime,
      devMajor: decoded.devMajor,
      devMinor: decoded.devMinor,
      xattrs,
      sparse: undefined,
      offset,
    };
  }

  #checkFields(decoded: BlockFields): void {
    const { nameBytes } = this.#limits;
    if (decoded.name.length > nameBytes) throw new Malformed(`name of ${decoded.name.length} bytes is too long`);
    if (decoded.linkName.length > nameBytes) {
      throw new Malformed(`link target of ${decoded.linkName.length} bytes is too long`);
    }
    if (decoded.size < 0) throw new Malformed('size is negative');
    for (const field of ['size', 'mode', 'uid', 'gid', 'devMajor', 'devMinor'] as const) {
      if (!Number.isSafeInteger(decoded[field])) throw new Malformed(`header field ${field} is out of range`);
    }
  }

  // Entries and their bodies.

  #beginEntry(header: TarHeader, decoded: BlockFields): void {
    const stored = header.size;
    this.#remaining = stored;
    this.#padding = padding(stored);
    const records = this.#pax?.records;
    const version = records === undefined ? undefined : sparseVersion(records, this.#pax!.sparse);
    if (records === undefined || version === undefined) {
      this.#report(header, undefined);
      return;
    }
    if (isHeaderOnly(header.type)) throw new Malformed('sparse entry that is not a file');
    const name = nonEmpty(records.get('GNU.sparse.name'));
    const size = records.get('GNU.sparse.size') ?? records.get('GNU.sparse.realsize');
    const sparse: TarHeader = {
      ...header,
      name: name ?? header.name,
      size: size === undefined || size.length === 0 ? decoded.size : parseSize(size.toString('latin1')),
    };
    if (sparse.name.length > this.#limits.nameBytes) throw new Malformed('name is too long');
    if (version === 'map') {
      this.#pending = sparse;
      this.#map = new MapReader(this.#limits.headerBytes);
      this.#state = 'map';
      if (this.#remaining < BLOCK) throw new Malformed('sparse map is cut off');
      return;
    }
    const fragments =
      this.#pax!.sparse !== undefined
        ? pairs(this.#pax!.sparse)
        : parseSparseList(textOf(records, 'GNU.sparse.numblocks'), textOf(records, 'GNU.sparse.map'));
    this.#report(sparse, fragments);
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
    this.#clearExtensions();
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

  #invalid(what: string): Failure {
    const offset = this.#state === 'header' && this.#blockFill === 0 ? this.#entryOffset : this.#offset;
    return new Failure('InvalidArgument', `${this.#subject}: ${what} at offset ${offset}: invalid argument`);
  }
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

function nonEmpty(value: Buffer | undefined): Buffer | undefined {
  return value === undefined || value.length === 0 ? undefined : Buffer.from(value);
}

function textOf(records: ReadonlyMap<string, Buffer>, key: string): string {
  return records.get(key)?.toString('latin1') ?? '';
}

/** GNU long names end in a NUL; bytes behind one would be a name that two readers see differently. */
function longName(body: Buffer): Buffer {
  const end = body.indexOf(0);
  if (end < 0) return body;
  for (let i = end; i < body.length; i++) if (body[i] !== 0) throw new Malformed('long name with a NUL inside');
  return body.subarray(0, end);
}

/** Which of GNU's pax sparse formats an entry has: `list` (0.0 and 0.1, the map in the records) or `map` (1.0, in front of the data). */
function sparseVersion(
  records: ReadonlyMap<string, Buffer>,
  pairsGiven: number[] | undefined,
): 'list' | 'map' | undefined {
  const major = textOf(records, 'GNU.sparse.major');
  const minor = textOf(records, 'GNU.sparse.minor');
  if (major === '0' && (minor === '0' || minor === '1')) return 'list';
  if (major === '1' && minor === '0') return 'map';
  if (major !== '' || minor !== '') {
    throw new Malformed(`sparse format ${printable(major)}.${printable(minor)} is unknown`);
  }
  return pairsGiven !== undefined || textOf(records, 'GNU.sparse.map') !== '' ? 'list' : undefined;
}
