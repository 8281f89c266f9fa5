/**
 * Numbers in header fields: octal text, or base-256 (GNU, star) when the top bit of the first byte is set.
 *
 * `undefined` means malformed. Base-256 goes up to 88 bits; beyond 63 bits is malformed, between 53 and 63 the value is rounded, so that a caller
 * who needs it exact asks `Number.isSafeInteger`.
 */

const SPACE = 0x20;
const ZERO = 0x30;

/** Octal digits with NULs and spaces around them; a NUL inside ends the number. An empty field is 0. */
export function parseOctal(block: Uint8Array, offset: number, size: number): number | undefined {
  let from = offset;
  let to = offset + size;
  while (from < to && (block[from] === SPACE || block[from] === 0)) from++;
  while (to > from && (block[to - 1] === SPACE || block[to - 1] === 0)) to--;
  let value = 0;
  for (let i = from; i < to; i++) {
    const byte = block[i]!;
    if (byte === 0) break;
    const digit = byte - ZERO;
    if (digit < 0 || digit > 7) return undefined;
    value = value * 8 + digit;
  }
  return value;
}

export function parseNumber(block: Uint8Array, offset: number, size: number): number | undefined {
  const first = block[offset]!;
  return (first & 0x80) === 0 ? parseOctal(block, offset, size) : parseBase256(block, offset, size);
}

/** Two's complement, big endian; bit 7 of the first byte is the mark, bit 6 the sign. */
function parseBase256(block: Uint8Array, offset: number, size: number): number | undefined {
  const negative = (block[offset]! & 0x40) !== 0;
  let value = 0n;
  for (let i = 0; i < size; i++) {
    const byte = i === 0 ? block[offset]! & 0x7f : block[offset + i]!;
    value = (value << 8n) | BigInt(byte);
  }
  if (negative) value -= 1n << BigInt(size * 8 - 1);
  return BigInt.asIntN(64, value) === value ? Number(value) : undefined;
}

/** True if `value` fits an octal field of `size` bytes, whose last is a NUL. */
export function fitsOctal(value: number, size: number): boolean {
  return value >= 0 && value < 8 ** (size - 1);
}

/** Writes `value` as zero-padded octal with a NUL behind it; the caller has asked `fitsOctal`. */
export function writeOctal(block: Uint8Array, offset: number, size: number, value: number): void {
  let rest = value;
  for (let i = size - 2; i >= 0; i--) {
    block[offset + i] = ZERO + (rest % 8);
    rest = Math.floor(rest / 8);
  }
  block[offset + size - 1] = 0;
}

/** Sums of the block with the checksum field as spaces. Old writers summed signed chars; readers accept both. */
export function checksums(block: Uint8Array, checksumOffset: number): { unsigned: number; signed: number } {
  let unsigned = 0;
  let high = 0;
  for (let i = 0; i < 512; i++) {
    const byte = block[i]!;
    unsigned += byte;
    high += byte >> 7;
  }
  for (let i = checksumOffset; i < checksumOffset + 8; i++) {
    const byte = block[i]!;
    unsigned += SPACE - byte;
    high -= byte >> 7;
  }
  return { unsigned, signed: unsigned - 256 * high };
}
