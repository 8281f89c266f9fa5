/** Decodes one header block into fields, before any extended header is laid over it. */

import { BLOCK, fields, gnuFields, starFields, type TarTime, ustarPrefix } from './format.ts';
import { checksums, parseNumber, parseOctal } from './number.ts';
import { Malformed } from './pax.ts';

/** How the block was written; decides which fields past byte 257 exist. */
export type Dialect = 'v7' | 'ustar' | 'star' | 'gnu';

export interface BlockFields {
  dialect: Dialect;
  typeFlag: string;
  name: Buffer;
  linkName: Buffer;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: TarTime;
  atime: TarTime | undefined;
  ctime: TarTime | undefined;
  userName: Buffer;
  groupName: Buffer;
  devMajor: number;
  devMinor: number;
}

const EMPTY = Buffer.alloc(0);
const MAGIC_USTAR = 'ustar\0';
const MAGIC_GNU = 'ustar  \0';
const TRAILER_STAR = 'tar\0';

export function isZeroBlock(block: Uint8Array): boolean {
  for (let i = 0; i < BLOCK; i++) if (block[i] !== 0) return false;
  return true;
}

/** @throws Malformed on a wrong checksum or a number that is none. The result shares no memory with `block`. */
export function decodeBlock(block: Buffer): BlockFields {
  const written = parseOctal(block, ...fields.checksum);
  const sums = checksums(block, fields.checksum[0]);
  if (written !== sums.unsigned && written !== sums.signed) throw new Malformed('header checksum is wrong');

  const dialect = dialectOf(block);
  const decoded: BlockFields = {
    dialect,
    typeFlag: String.fromCharCode(block[fields.type[0]]!),
    name: text(block, fields.name),
    linkName: text(block, fields.linkName),
    mode: number(block, 'mode'),
    uid: number(block, 'uid'),
    gid: number(block, 'gid'),
    size: number(block, 'size'),
    mtime: { seconds: number(block, 'mtime'), nanoseconds: 0 },
    atime: undefined,
    ctime: undefined,
    userName: EMPTY,
    groupName: EMPTY,
    devMajor: 0,
    devMinor: 0,
  };
  if (dialect === 'v7') return decoded;

  decoded.userName = text(block, fields.userName);
  decoded.groupName = text(block, fields.groupName);
  decoded.devMajor = number(block, 'devMajor');
  decoded.devMinor = number(block, 'devMinor');
  if (dialect === 'ustar') decoded.name = prefixed(text(block, ustarPrefix), decoded.name);
  else if (dialect === 'star') decodeStar(block, decoded);
  else decodeGnu(block, decoded);
  return decoded;
}

function dialectOf(block: Buffer): Dialect {
  const magic = block.toString('latin1', fields.magic[0], fields.version[0] + fields.version[1]);
  if (magic === MAGIC_GNU) return 'gnu';
  if (!magic.startsWith(MAGIC_USTAR)) return 'v7';
  const [offset, size] = starFields.trailer;
  return block.toString('latin1', offset, offset + size) === TRAILER_STAR ? 'star' : 'ustar';
}

function decodeStar(block: Buffer, decoded: BlockFields): void {
  decoded.name = prefixed(text(block, starFields.prefix), decoded.name);
  const atime = parseNumber(block, ...starFields.atime);
  const ctime = parseNumber(block, ...starFields.ctime);
  if (atime === undefined || ctime === undefined) throw new Malformed('header time is not a number');
  decoded.atime = { seconds: atime, nanoseconds: 0 };
  decoded.ctime = { seconds: ctime, nanoseconds: 0 };
}

/**
 * GNU has two times where ustar has its prefix. Go before 1.8 wrote a prefix there all the same; such archives exist, so times that are no numbers are
 * taken as a prefix when they are ASCII, as every later Go does.
 */
function decodeGnu(block: Buffer, decoded: BlockFields): void {
  const atime = gnuTime(block, gnuFields.atime);
  const ctime = gnuTime(block, gnuFields.ctime);
  if (atime !== null && ctime !== null) {
    decoded.atime = atime;
    decoded.ctime = ctime;
    return;
  }
  const prefix = text(block, ustarPrefix);
  if (prefix.every((byte) => byte < 0x80)) decoded.name = prefixed(prefix, decoded.name);
}

/** undefined: not given; null: not a number. */
function gnuTime(block: Buffer, [offset, size]: readonly [number, number]): TarTime | undefined | null {
  if (block[offset] === 0) return undefined;
  const seconds = parseNumber(block, offset, size);
  return seconds === undefined ? null : { seconds, nanoseconds: 0 };
}

function number(block: Buffer, field: keyof typeof fields): number {
  const value = parseNumber(block, ...(fields[field] as readonly [number, number]));
  if (value === undefined) throw new Malformed(`header field ${field} is not a number`);
  return value;
}

/** The bytes of a field up to its first NUL, copied: the block is reused. */
function text(block: Buffer, [offset, size]: readonly [number, number]): Buffer {
  const end = block.indexOf(0, offset);
  const stop = end < 0 || end > offset + size ? offset + size : end;
  return stop === offset ? EMPTY : Buffer.from(block.subarray(offset, stop));
}

function prefixed(prefix: Buffer, name: Buffer): Buffer {
  return prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from('/'), name]);
}
