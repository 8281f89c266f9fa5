/**
 * Encodes entries as POSIX ustar, with a pax extended header for what ustar cannot say: long or non-ASCII names, fractions of a second, big ids and
 * sizes, extended attributes.
 *
 * The same entry gives the same bytes always: nothing of the machine or the moment goes in, records are in order of their keys. The order of entries is the
 * caller's. (Read by Go's archive/tar, GNU tar and bsdtar alike; a GNU sparse map is never written, since not every reader of layers knows it.)
 */

import { BLOCK, type EntryType, fields, type TarTime, ustarPrefix } from './format.ts';
import { checksums, fitsOctal, writeOctal } from './number.ts';
import { formatRecord, formatTime, SCHILY_XATTR } from './pax.ts';

/** An entry to be written. Names are bytes; a directory's name ends in a slash by custom, which is the caller's to add. */
export interface TarEntry {
  readonly type: Exclude<EntryType, 'global' | 'other'>;
  readonly name: Buffer;
  readonly linkName?: Buffer;
  /** Bytes of body that follow, padded with `padding`; 0 unless it is a file. */
  readonly size?: number;
  /** Twelve bits. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime: TarTime;
  readonly devMajor?: number;
  readonly devMinor?: number;
  /** Keys are byte strings. */
  readonly xattrs?: ReadonlyMap<string, Uint8Array>;
}

const flags: Readonly<Record<TarEntry['type'], string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** Two zero blocks. */
export const endOfArchive: Buffer = Buffer.alloc(2 * BLOCK);

const zeros = Buffer.alloc(BLOCK);

/** What goes behind a body of `size` bytes to fill its last block. */
export function padding(size: number): Buffer {
  return zeros.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK);
}

/** The header blocks of an entry; its body and padding are the caller's to write behind them. */
export function encodeHeader(entry: TarEntry): Buffer {
  const records = new Map<string, Buffer>();
  const block = Buffer.alloc(BLOCK);
  writeName(block, entry.name, records);
  const linkName = entry.linkName ?? Buffer.alloc(0);
  if (linkName.length > fields.linkName[1] || !isAscii(linkName)) records.set('linkpath', linkName);
  linkName.copy(block, fields.linkName[0], 0, fields.linkName[1]);

  writeNumber(block, 'mode', entry.mode & 0o7777, records);
  writeNumber(block, 'uid', entry.uid ?? 0, records);
  writeNumber(block, 'gid', entry.gid ?? 0, records);
  writeNumber(block, 'size', entry.size ?? 0, records);
  const { mtime } = entry;
  const wholeSeconds = mtime.nanoseconds === 0 && fitsOctal(mtime.seconds, fields.mtime[1]);
  if (!wholeSeconds) records.set('mtime', Buffer.from(formatTime(mtime)));
  writeOctal(block, ...fields.mtime, fitsOctal(mtime.seconds, fields.mtime[1]) ? mtime.seconds : 0);
  writeOctal(block, ...fields.devMajor, entry.devMajor ?? 0);
  writeOctal(block, ...fields.devMinor, entry.devMinor ?? 0);
  for (const [key, value] of entry.xattrs ?? []) records.set(SCHILY_XATTR + key, Buffer.from(value));

  seal(block, flags[entry.type]);
  if (records.size === 0) return block;
  return Buffer.concat([encodeExtension(entry.name, records), block]);
}

/** The extended header in front of an entry: a header block of its own, then the records as its body. */
function encodeExtension(name: Buffer, records: ReadonlyMap<string, Buffer>): Buffer {
  const body = Buffer.concat(
    [...records].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => formatRecord(key, value)),
  );
  const block = Buffer.alloc(BLOCK);
  // Readers that do not know pax extract it as a file of this name.
  const base = name.subarray(name.subarray(0, -1).lastIndexOf(0x2f) + 1);
  Buffer.concat([Buffer.from('PaxHeaders.0/'), base.filter((byte) => byte < 0x80)]).copy(block, 0, 0, fields.name[1]);
  writeOctal(block, ...fields.mode, 0o644);
  writeOctal(block, ...fields.uid, 0);
  writeOctal(block, ...fields.gid, 0);
  writeOctal(block, ...fields.size, body.length);
  writeOctal(block, ...fields.mtime, 0);
  writeOctal(block, ...fields.devMajor, 0);
  writeOctal(block, ...fields.devMinor, 0);
  seal(block, 'x');
  return Buffer.concat([block, body, padding(body.length)]);
}

function seal(block: Buffer, flag: string): void {
  block.write(flag, fields.type[0], 'latin1');
  block.write('ustar\x0000', fields.magic[0], 'latin1');
  const { unsigned } = checksums(block, fields.checksum[0]);
  // Six digits, NUL, space: as every tar has written it since v7.
  writeOctal(block, fields.checksum[0], 7, unsigned);
  block[fields.checksum[0] + 7] = 0x20;
}

/** In the name field, or split at a slash into prefix and name; else the name field has the beginning, and the whole is in the extended header. */
function writeName(block: Buffer, name: Buffer, records: Map<string, Buffer>): void {
  const [nameOffset, nameSize] = fields.name;
  const [prefixOffset, prefixSize] = ustarPrefix;
  if (isAscii(name)) {
    if (name.length <= nameSize) {
      name.copy(block, nameOffset);
      return;
    }
    // Not the slash at the end of a directory's name: the field behind it would be empty.
    const slash = name.subarray(0, Math.min(prefixSize + 1, name.length - 1)).lastIndexOf(0x2f);
    const rest = name.length - slash - 1;
    if (slash > 0 && rest > 0 && rest <= nameSize) {
      name.copy(block, prefixOffset, 0, slash);
      name.copy(block, nameOffset, slash + 1);
      return;
    }
  }
  records.set('path', name);
  name.copy(block, nameOffset, 0, nameSize);
}

function writeNumber(
  block: Buffer,
  field: 'mode' | 'uid' | 'gid' | 'size',
  value: number,
  records: Map<string, Buffer>,
): void {
  const [offset, size] = fields[field];
  const fits = fitsOctal(value, size);
  if (!fits) records.set(field, Buffer.from(String(value)));
  writeOctal(block, offset, size, fits ? value : 0);
}

function isAscii(name: Buffer): boolean {
  return name.every((byte) => byte < 0x80);
}
