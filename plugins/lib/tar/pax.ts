/**
 * Extended header records (POSIX.1-2017 pax, "pax Header Block"): `LENGTH KEY=VALUE\n`, the length in decimal and counting itself.
 *
 * Keys and values are bytes. Keys travel here as byte strings, one character per byte, since they only serve to be compared.
 */

import type { Fragment, TarTime } from './format.ts';

export const SCHILY_XATTR = 'SCHILY.xattr.';
export const LIBARCHIVE_XATTR = 'LIBARCHIVE.xattr.';

export interface PaxRecords {
  readonly records: Map<string, Buffer>;
  /** GNU sparse 0.0 repeats its two keys for each fragment, so the order of records is data. */
  readonly sparse: number[] | undefined;
}

/** Thrown by the parsers of this folder; the reader adds the offset and makes it a Failure. */
export class Malformed extends Error {}

const decimal = /^[0-9]+$/;
const signedDecimal = /^[-+]?[0-9]+$/;

/** @throws Malformed on a wrong length, a missing `=` or newline, an empty key, a NUL where the standard has text. */
export function parsePax(body: Buffer): PaxRecords {
  const records = new Map<string, Buffer>();
  let sparse: number[] | undefined;
  let at = 0;
  while (at < body.length) {
    const space = body.indexOf(0x20, at);
    // Nineteen digits are more than any length that fits the body.
    if (space < 0 || space - at > 19) throw new Malformed('extended header record without a length');
    const digits = body.toString('latin1', at, space);
    const length = decimal.test(digits) ? Number(digits) : 0;
    const end = at + length;
    if (length < 5 || end > body.length || end <= space + 1)
      throw new Malformed('extended header record of wrong length');
    if (body[end - 1] !== 0x0a) throw new Malformed('extended header record without a newline');
    const equals = body.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end - 1) throw new Malformed('extended header record without "="');
    const key = body.toString('latin1', space + 1, equals);
    const value = body.subarray(equals + 1, end - 1);
    checkRecord(key, value);
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      sparse ??= [];
      // An offset must open a pair and a length close it.
      if ((sparse.length % 2 === 0) !== (key === 'GNU.sparse.offset')) throw new Malformed('sparse map out of order');
      sparse.push(parseSize(value.toString('latin1')));
    } else {
      records.set(key, value);
    }
    at = end;
  }
  if (sparse !== undefined && sparse.length % 2 !== 0) throw new Malformed('sparse map out of order');
  return { records, sparse };
}

function checkRecord(key: string, value: Buffer): void {
  if (key === '') throw new Malformed('extended header record without a key');
  if (key.includes('\0')) throw new Malformed('extended header key with a NUL');
  if (key === 'path' || key === 'linkpath' || key === 'uname' || key === 'gname' || key === 'GNU.sparse.name') {
    if (value.includes(0)) throw new Malformed(`extended header ${key} with a NUL`);
  }
}

/** A decimal integer, exact. @throws Malformed for anything else, and beyond 2^53. */
export function parseInteger(text: string): number {
  const value = signedDecimal.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new Malformed(`"${printable(text)}" is not a number`);
  return value;
}

/** A length or an offset: an integer that is not negative. */
export function parseSize(text: string): number {
  const value = parseInteger(text);
  if (value < 0) throw new Malformed(`"${printable(text)}" is negative`);
  return value;
}

/**
 * Seconds with an optional fraction; digits beyond the ninth are dropped. Seconds that no clock reaches saturate at ±2^53, and are clamped by whoever
 * sets the time.
 */
export function parseTime(text: string): TarTime {
  const match = /^([-+]?)([0-9]+)(?:\.([0-9]*))?$/.exec(text);
  if (match === null || match[2]!.length > 19) throw new Malformed(`"${printable(text)}" is not a time`);
  const whole = Math.min(Number(match[2]), Number.MAX_SAFE_INTEGER);
  const nanoseconds = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match[1] !== '-') return { seconds: whole, nanoseconds };
  return nanoseconds === 0
    ? { seconds: 0 - whole, nanoseconds: 0 }
    : { seconds: 0 - whole - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}

/** Extended attributes from both spellings; star's, whose values are raw bytes, wins over libarchive's (URL-encoded key, base64 value). */
export function xattrsOf(records: ReadonlyMap<string, Buffer>): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of records) {
    if (!key.startsWith(LIBARCHIVE_XATTR)) continue;
    const name = percentDecode(key.slice(LIBARCHIVE_XATTR.length));
    if (name.includes('\0')) throw new Malformed('extended attribute name with a NUL');
    const text = value.toString('latin1');
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text))
      throw new Malformed(`extended attribute "${printable(name)}" is not base64`);
    xattrs.set(name, Buffer.from(text, 'base64'));
  }
  for (const [key, value] of records) {
    if (key.startsWith(SCHILY_XATTR)) xattrs.set(key.slice(SCHILY_XATTR.length), Buffer.from(value));
  }
  return xattrs;
}

function percentDecode(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** GNU sparse 0.1: `offset,length,offset,length…` beside a count. */
export function parseSparseList(count: string, list: string): Fragment[] {
  const wanted = parseSize(count);
  const numbers = list === '' ? [] : list.split(',');
  if (numbers.length !== 2 * wanted) throw new Malformed('sparse map of wrong length');
  return pairs(numbers.map(parseSize));
}

/** Numbers that come as offset, length, offset, length … */
export function pairs(numbers: readonly number[]): Fragment[] {
  const fragments: Fragment[] = [];
  for (let i = 0; i + 1 < numbers.length; i += 2) fragments.push({ offset: numbers[i]!, length: numbers[i + 1]! });
  return fragments;
}

/** One record with its length, which depends on its own number of digits. */
export function formatRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

/** Seconds and a fraction without trailing zeros, as `parseTime` reads it. */
export function formatTime(time: TarTime): string {
  if (time.nanoseconds === 0) return String(time.seconds);
  if (time.seconds >= 0) return `${time.seconds}.${fraction(time.nanoseconds)}`;
  const whole = -(time.seconds + 1);
  return `-${whole}.${fraction(1_000_000_000 - time.nanoseconds)}`;
}

function fraction(nanoseconds: number): string {
  return String(nanoseconds).padStart(9, '0').replace(/0+$/, '');
}

/** Bytes that came from an archive, fit for a message: no control characters, at most 64 of them. */
export function printable(text: string): string {
  const short = text.length > 64 ? `${text.slice(0, 64)}…` : text;
  return short.replace(/[^\x20-\x7e\u2026]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
