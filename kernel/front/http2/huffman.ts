/**
 * The Huffman code of header compression (RFC 7541, section 5.2 and appendix B). The code is canonical, so the lengths of its 257 codes
 * (the last is the end-of-string symbol) say all of it. Decoding goes by half bytes: a table of 256 tree nodes × 16.
 */

const lengths = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
  28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6,
  5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23,
  22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
  23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26,
  20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27,
  27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
  27, 27, 27, 26, 30,
];
const endOfString = 256;

/** Bits of a table entry besides the next node (bits 0–7) and the symbol (bits 8–15). */
const emits = 1 << 16;
const fails = 1 << 17;

const { table, accepting } = build();

function build(): { table: Uint32Array; accepting: Uint8Array } {
  // A node is a pair of children; a leaf is a symbol, kept as its bitwise complement.
  const children: [number, number][] = [[-1, -1]];
  const unset = -1;
  const codes = [...lengths.keys()].sort((a, b) => lengths[a]! - lengths[b]! || a - b);
  let code = 0;
  let before = lengths[codes[0]!]!;
  for (const symbol of codes) {
    const length = lengths[symbol]!;
    code <<= length - before;
    before = length;
    let node = 0;
    for (let bit = length - 1; bit > 0; bit--) {
      const side = ((code >>> bit) & 1) as 0 | 1;
      if (children[node]![side] === unset) {
        children.push([unset, unset]);
        children[node]![side] = children.length - 1;
      }
      node = children[node]![side];
    }
    children[node]![(code & 1) as 0 | 1] = ~symbol - 1;
    code += 1;
  }
  const symbolOf = (child: number): number => ~(child + 1);

  const built = new Uint32Array(children.length * 16);
  for (let start = 0; start < children.length; start++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = start;
      let entry = 0;
      for (let bit = 3; bit >= 0; bit--) {
        const child = children[node]![((nibble >>> bit) & 1) as 0 | 1];
        if (child >= 0) {
          node = child;
          continue;
        }
        if (symbolOf(child) === endOfString) {
          entry = fails;
          break;
        }
        // The shortest code has 5 bits: no half byte ends two symbols.
        entry |= emits | (symbolOf(child) << 8);
        node = 0;
      }
      built[start * 16 + nibble] = (entry & fails) !== 0 ? entry : entry | node;
    }
  }
  // Padding is fewer than 8 bits of ones: the nodes of the first seven on that path.
  const ends = new Uint8Array(children.length);
  for (let node = 0, depth = 0; depth < 8; depth++) {
    ends[node] = 1;
    node = children[node]![1];
  }
  return { table: built, accepting: ends };
}

/** Most header values are shorter than this, decoded. */
let scratch = Buffer.allocUnsafeSlow(4096);

/** @returns the text as bytes, valid until the next call; undefined when it is no Huffman code, or padded wrongly */
export function decodeHuffman(bytes: Uint8Array, from: number, to: number): Buffer | undefined {
  const most = Math.ceil(((to - from) * 8) / 5);
  if (scratch.length < most) scratch = Buffer.allocUnsafeSlow(most);
  const out = scratch;
  let node = 0;
  let length = 0;
  for (let at = from; at < to; at++) {
    const byte = bytes[at]!;
    const high = table[node * 16 + (byte >>> 4)]!;
    if ((high & emits) !== 0) out[length++] = high >>> 8;
    const low = table[(high & 0xff) * 16 + (byte & 15)]!;
    if ((low & emits) !== 0) out[length++] = low >>> 8;
    if (((high | low) & fails) !== 0) return undefined;
    node = low & 0xff;
  }
  return accepting[node] === 1 ? out.subarray(0, length) : undefined;
}
