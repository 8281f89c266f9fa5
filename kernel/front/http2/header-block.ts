/**
 * Header blocks that we send (RFC 7541): literals that no table keeps. A server's headers are a few constants, encoded once when the thread starts, and
 * a status text; a dynamic table would save 40 bytes per call and be state that each connection has to carry.
 */
import { staticTable } from './static-table.ts';

const nameIndex = new Map<string, number>();
const fieldIndex = new Map<string, number>();
for (const [at, [name, value]] of staticTable.entries()) {
  if (!nameIndex.has(name)) nameIndex.set(name, at + 1);
  if (value !== '') fieldIndex.set(`${name}=${value}`, at + 1);
}

/** A dynamic table of size 0: owed to a peer that has made its own smaller, before the next block. */
export const emptyTable = Buffer.from([0x20]);

/** @param fields names in lower case; values in ASCII, for what else there is must have been escaped */
export function headerBlock(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => headerField(name, value)));
}

function headerField(name: string, value: string): Buffer {
  const whole = fieldIndex.get(`${name}=${value}`);
  if (whole !== undefined) return Buffer.from(integer(whole, 7, 0x80));
  const named = nameIndex.get(name);
  const start = named === undefined ? [0, ...string(name)] : integer(named, 4, 0);
  const bytes = Buffer.from(value, 'latin1');
  return Buffer.concat([Buffer.from(start), Buffer.from(integer(bytes.length, 7, 0)), bytes]);
}

function string(text: string): number[] {
  return [...integer(text.length, 7, 0), ...Buffer.from(text, 'latin1')];
}

function integer(value: number, prefixBits: number, pattern: number): number[] {
  const most = (1 << prefixBits) - 1;
  if (value < most) return [pattern | value];
  const bytes = [pattern | most];
  let rest = value - most;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return [...bytes, rest];
}
