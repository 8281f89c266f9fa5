/**
 * Sparse maps as GNU tar writes them (GNU tar manual, "Storing Sparse Files").
 *
 * A map is at most 1 MiB of text or blocks, like any other header body, so a hostile count cannot make us allocate.
 */

import { BLOCK, type Fragment, gnuFields, gnuSparse } from './format.ts';
import { parseNumber } from './number.ts';
import { Malformed, pairs, parseSize } from './pax.ts';

/** Fragments must lie in order, apart, and inside the file. @throws Malformed */
export function checkFragments(fragments: readonly Fragment[], size: number): void {
  let end = 0;
  for (const fragment of fragments) {
    if (fragment.offset < end || fragment.length < 0) throw new Malformed('sparse map overlaps or is out of order');
    end = fragment.offset + fragment.length;
    if (end > size) throw new Malformed('sparse map reaches beyond the end of the file');
  }
}

/** Sum of the bytes that a map says are stored. */
export function storedSize(fragments: readonly Fragment[]): number {
  let sum = 0;
  for (const fragment of fragments) sum += fragment.length;
  return sum;
}

/**
 * Reads the fragments of an old GNU map from a header block or from one that continues it.
 * @returns whether another block of the map follows
 */
export function readOldMap(block: Buffer, where: 'header' | 'block', into: Fragment[]): boolean {
  const width = gnuSparse.number;
  const base = where === 'header' ? gnuFields.sparse[0] : 0;
  const count = where === 'header' ? gnuSparse.inHeader : gnuSparse.inBlock;
  for (let i = 0; i < count; i++) {
    const at = base + i * 2 * width;
    // An offset that starts with a NUL ends the map; the bytes behind it are padding.
    if (block[at] === 0) break;
    const offset = parseNumber(block, at, width);
    const length = parseNumber(block, at + width, width);
    if (offset === undefined || length === undefined || !Number.isSafeInteger(offset + length) || offset < 0) {
      throw new Malformed('sparse map is not made of numbers');
    }
    into.push({ offset, length });
  }
  const more = where === 'header' ? gnuFields.sparseMore[0] : gnuSparse.more;
  return block[more]! > 0;
}

/**
 * GNU sparse 1.0: the map is text in front of the data, one number a line, padded to a block: a count, then offset and length of each fragment.
 * Fed block by block, since only the text itself says how many blocks it has.
 */
export class MapReader {
  readonly #limit: number;
  #text = '';
  #lines: string[] = [];
  #wanted = -1;
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @returns the fragments once the map is whole, else undefined. @throws Malformed */
  push(block: Buffer): Fragment[] | undefined {
    this.#bytes += BLOCK;
    if (this.#bytes > this.#limit) throw new Malformed('sparse map is too long');
    const lines = (this.#text + block.toString('latin1', 0, BLOCK)).split('\n');
    this.#text = lines.pop()!;
    for (const line of lines) this.#lines.push(line);
    if (this.#wanted < 0 && this.#lines.length > 0) {
      this.#wanted = parseSize(this.#lines[0]!);
      if (this.#wanted * 4 > this.#limit) throw new Malformed('sparse map is too long');
    }
    if (this.#wanted < 0 || this.#lines.length < 1 + 2 * this.#wanted) return undefined;
    return pairs(this.#lines.slice(1, 1 + 2 * this.#wanted).map(parseSize));
  }
}
