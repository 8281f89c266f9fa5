/** The headers in front of an entry that say what its own block cannot: pax records, GNU long names. Gathered one body at a time, then laid over the block. */

import type { BlockFields } from './block.ts';
import { entryType, type Fragment, isHeaderOnly, type TarHeader, typeFlags } from './format.ts';
import {
  Malformed,
  type PaxRecords,
  pairs,
  parseInteger,
  parsePax,
  parseSize,
  parseSparseList,
  parseTime,
  printable,
  xattrsOf,
} from './pax.ts';

/** More than any writer makes: two long names and pax records are three. */
const MOST = 8;
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();
const EMPTY = Buffer.alloc(0);

/** A sparse file by pax records: its map is there (`fragments`), or in front of its data (undefined). */
export interface PaxSparse {
  readonly header: TarHeader;
  readonly fragments: readonly Fragment[] | undefined;
}

export class Extensions {
  readonly #bodyLimit: number;
  readonly #nameLimit: number;
  #body: Buffer = EMPTY;
  #fill = 0;
  #flag = '';
  #count = 0;
  #pax: PaxRecords | undefined;
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

  constructor(bodyLimit: number, nameLimit: number) {
    this.#bodyLimit = bodyLimit;
    this.#nameLimit = nameLimit;
  }

  static is(typeFlag: string): boolean {
    const { pax, paxGlobal, gnuLongName, gnuLongLink } = typeFlags;
    return typeFlag === pax || typeFlag === paxGlobal || typeFlag === gnuLongName || typeFlag === gnuLongLink;
  }

  /** Some wait for their entry. */
  get pending(): boolean {
    return this.#count > 0;
  }

  begin({ size, typeFlag }: BlockFields): void {
    if (size < 0) throw new Malformed('size is negative');
    if (size > this.#bodyLimit) throw new Malformed(`header body of ${size} bytes is too long`);
    if (++this.#count > MOST) throw new Malformed('too many extension headers for one entry');
    this.#flag = typeFlag;
    this.#body = Buffer.allocUnsafe(size);
    this.#fill = 0;
  }

  /** @returns how many bytes it took; `complete` tells when that was the last. */
  take(bytes: Buffer, at: number): number {
    const taken = bytes.copy(this.#body, this.#fill, at);
    this.#fill += taken;
    return taken;
  }

  get complete(): boolean {
    return this.#fill === this.#body.length;
  }

  /** Reads the body. @returns the header to report if it was a global one, which by Go's reading ends what was gathered so far */
  end(offset: number): TarHeader | undefined {
    const body = this.#body;
    this.#body = EMPTY;
    this.#fill = 0;
    switch (this.#flag) {
      case typeFlags.gnuLongName:
        this.#longName = longName(body);
        return undefined;
      case typeFlags.gnuLongLink:
        this.#longLink = longName(body);
        return undefined;
      case typeFlags.pax:
        this.#pax = parsePax(body);
        return undefined;
      default: {
        const { records } = parsePax(body);
        this.clear();
        return globalHeader(records.get('path') ?? EMPTY, offset);
      }
    }
  }

  clear(): void {
    this.#count = 0;
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#pax = undefined;
  }

  /** The entry as block and extensions say it: pax first, then GNU names, as Go does. Empty values leave the block's own. */
  merge(decoded: BlockFields, offset: number): TarHeader {
    const records = this.#pax?.records;
    if (records !== undefined) layOver(decoded, records);
    if (this.#longName !== undefined && this.#longName.length > 0) decoded.name = this.#longName;
    if (this.#longLink !== undefined && this.#longLink.length > 0) decoded.linkName = this.#longLink;
    this.#check(decoded);

    // v7 has no flag for directories: a slash at the end of a name with flag NUL is one.
    const isOldDirectory = decoded.typeFlag === '\0' && decoded.name.at(-1) === 0x2f;
    const type = isOldDirectory ? 'directory' : entryType(decoded.typeFlag);
    const { dialect: _, ...fields } = decoded;
    return {
      ...fields,
      type,
      size: isHeaderOnly(type) ? 0 : decoded.size,
      xattrs: records === undefined ? NO_XATTRS : xattrsOf(records),
      sparse: undefined,
      offset,
    };
  }

  /** What the records say of a sparse file; undefined if it is none. */
  sparse(header: TarHeader): PaxSparse | undefined {
    const pax = this.#pax;
    const version = pax === undefined ? undefined : sparseVersion(pax);
    if (pax === undefined || version === undefined) return undefined;
    if (isHeaderOnly(header.type)) throw new Malformed('sparse entry that is not a file');
    const { records } = pax;
    const size = textOf(records, 'GNU.sparse.size') || textOf(records, 'GNU.sparse.realsize');
    const name = nonEmpty(records.get('GNU.sparse.name')) ?? header.name;
    if (name.length > this.#nameLimit) throw new Malformed(`name of ${name.length} bytes is too long`);
    const sparse = { ...header, name, size: size === '' ? header.size : parseSize(size) };
    if (version === 'map') return { header: sparse, fragments: undefined };
    const fragments =
      pax.sparse !== undefined
        ? pairs(pax.sparse)
        : parseSparseList(textOf(records, 'GNU.sparse.numblocks'), textOf(records, 'GNU.sparse.map'));
    return { header: sparse, fragments };
  }

  #check(decoded: BlockFields): void {
    if (decoded.name.length > this.#nameLimit) throw new Malformed(`name of ${decoded.name.length} bytes is too long`);
    if (decoded.linkName.length > this.#nameLimit) {
      throw new Malformed(`link target of ${decoded.linkName.length} bytes is too long`);
    }
    if (decoded.size < 0) throw new Malformed('size is negative');
    const { size, mode, uid, gid, devMajor, devMinor } = decoded;
    requireSafe('size', size);
    requireSafe('mode', mode);
    requireSafe('uid', uid);
    requireSafe('gid', gid);
    requireSafe('devMajor', devMajor);
    requireSafe('devMinor', devMinor);
  }
}

function requireSafe(field: string, value: number): void {
  if (!Number.isSafeInteger(value)) throw new Malformed(`header field ${field} is out of range`);
}

function layOver(decoded: BlockFields, records: ReadonlyMap<string, Buffer>): void {
  decoded.name = nonEmpty(records.get('path')) ?? decoded.name;
  decoded.linkName = nonEmpty(records.get('linkpath')) ?? decoded.linkName;
  decoded.userName = nonEmpty(records.get('uname')) ?? decoded.userName;
  decoded.groupName = nonEmpty(records.get('gname')) ?? decoded.groupName;
  for (const field of ['uid', 'gid', 'size'] as const) {
    const text = textOf(records, field);
    if (text !== '') decoded[field] = parseInteger(text);
  }
  for (const field of ['mtime', 'atime', 'ctime'] as const) {
    const text = textOf(records, field);
    if (text !== '') decoded[field] = parseTime(text);
  }
}

function globalHeader(name: Buffer, offset: number): TarHeader {
  return {
    type: 'global',
    typeFlag: typeFlags.paxGlobal,
    name,
    linkName: EMPTY,
    size: 0,
    mode: 0,
    uid: 0,
    gid: 0,
    userName: EMPTY,
    groupName: EMPTY,
    mtime: { seconds: 0, nanoseconds: 0 },
    atime: undefined,
    ctime: undefined,
    devMajor: 0,
    devMinor: 0,
    xattrs: NO_XATTRS,
    sparse: undefined,
    offset,
  };
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
function sparseVersion({ records, sparse }: PaxRecords): 'list' | 'map' | undefined {
  const major = textOf(records, 'GNU.sparse.major');
  const minor = textOf(records, 'GNU.sparse.minor');
  if (major === '0' && (minor === '0' || minor === '1')) return 'list';
  if (major === '1' && minor === '0') return 'map';
  if (major !== '' || minor !== '') {
    throw new Malformed(`sparse format ${printable(major)}.${printable(minor)} is unknown`);
  }
  return sparse !== undefined || textOf(records, 'GNU.sparse.map') !== '' ? 'list' : undefined;
}
