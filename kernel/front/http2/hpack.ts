/**
 * Header compression (RFC 7541), the decoding side. A block must be read to its end even when its fields are of no use any more, because the
 * table that the next block refers to is a product of all before it; so limits stop the keeping of fields, not the reading.
 */
import { ConnectionError, errorCode } from './frames.ts';
import { decodeHuffman } from './huffman.ts';
import { staticTable } from './static-table.ts';

export interface HeaderField {
  readonly name: string;
  /** ASCII as it is; other bytes as the UTF-8 that Go's clients mean by them. */
  readonly value: string;
  /** RFC 9113, 8.2.1: no upper case, no control characters. A request with one that is not is malformed. */
  readonly valid: boolean;
  /** What it counts in tables and lists: the bytes of both, and 32. */
  readonly size: number;
}

export interface HeaderBlock {
  readonly fields: readonly HeaderField[];
  /** There were more fields, or bytes of them, than the limits allow; `fields` are the first ones. */
  readonly oversize: boolean;
}

export interface HeaderLimits {
  /** Sum of the lengths of all names and values, and 32 for each field: what SETTINGS_MAX_HEADER_LIST_SIZE counts. */
  readonly maxListSize: number;
  readonly maxFields: number;
}

/** SETTINGS_HEADER_TABLE_SIZE that we announce: the default. */
const tableLimit = 4096;
const fieldOverhead = 32;
const statics: readonly HeaderField[] = staticTable.map(([name, value]) => ({
  name,
  value,
  valid: true,
  size: name.length + value.length + fieldOverhead,
}));

const wrongInName = /[^!#$%&'*+\-.^_`|~0-9a-z]/;
const wrongInValue = /[\0\r\n]/;

export class HpackDecoder {
  /** Newest last; the first `#evicted` are gone. */
  #entries: HeaderField[] = [];
  #evicted = 0;
  #bytes = 0;
  #limit = tableLimit;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Bytes of the string that was read last. */
  #read = 0;

  /** @throws ConnectionError: from then on nothing that the peer says can be understood */
  decode(block: Buffer, limits: HeaderLimits): HeaderBlock {
    this.#block = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let size = 0;
    let count = 0;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        if (count > 0) throw broken('table size is changed inside a block');
        this.#resize(this.#integer(5));
        continue;
      }
      const field = this.#field(first);
      size += field.size;
      count += 1;
      if (size <= limits.maxListSize && count <= limits.maxFields) fields.push(field);
    }
    return { fields, oversize: fields.length < count };
  }

  #field(first: number): HeaderField {
    if ((first & 0x80) !== 0) return this.#indexed(this.#integer(7));
    const kept = (first & 0x40) !== 0;
    const index = this.#integer(kept ? 6 : 4);
    const named = index === 0 ? undefined : this.#indexed(index);
    const name = named?.name ?? this.#string(false);
    const nameBytes = name.length;
    const value = this.#string(true);
    const valid = (named?.valid || isName(name)) && !wrongInValue.test(value);
    const field = { name, value, valid, size: nameBytes + this.#read + fieldOverhead };
    if (kept) this.#keep(field);
    return field;
  }

  #indexed(index: number): HeaderField {
    if (index === 0) throw broken('index 0');
    if (index <= statics.length) return statics[index - 1]!;
    const at = this.#entries.length - (index - statics.length);
    if (at < this.#evicted) throw broken(`index ${index} beyond the table`);
    return this.#entries[at]!;
  }

  #keep(field: HeaderField): void {
    const { size } = field;
    this.#shrink(this.#limit - size);
    // One that is larger than the table empties it, and is not kept.
    if (size > this.#limit) return;
    this.#entries.push(field);
    this.#bytes += size;
  }

  #resize(limit: number): void {
    if (limit > tableLimit) throw broken(`table of ${limit} bytes`);
    this.#limit = limit;
    this.#shrink(limit);
  }

  #shrink(bytes: number): void {
    while (this.#bytes > bytes && this.#evicted < this.#entries.length) {
      this.#bytes -= this.#entries[this.#evicted]!.size;
      this.#evicted += 1;
    }
    if (this.#evicted < 128) return;
    this.#entries = this.#entries.slice(this.#evicted);
    this.#evicted = 0;
  }

  /** RFC 7541, 5.1. Nothing that is counted here needs more than 24 bits. */
  #integer(prefixBits: number): number {
    const most = (1 << prefixBits) - 1;
    let value = this.#byte() & most;
    if (value < most) return value;
    for (let shift = 0; ; shift += 7) {
      if (shift > 21) throw broken('integer too long');
      const byte = this.#byte();
      value += (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value;
    }
  }

  #byte(): number {
    const byte = this.#block[this.#at];
    if (byte === undefined) throw broken('block is cut');
    this.#at += 1;
    return byte;
  }

  #string(utf8: boolean): string {
    const huffman = (this.#block[this.#at]! & 0x80) !== 0;
    const length = this.#integer(7);
    const from = this.#at;
    const to = from + length;
    if (to > this.#block.length) throw broken('block is cut');
    this.#at = to;
    this.#read = length;
    if (!huffman) return text(this.#block, from, to, utf8);
    const decoded = decodeHuffman(this.#block, from, to);
    if (decoded === undefined) throw broken('not a Huffman code');
    this.#read = decoded.length;
    return text(decoded, 0, decoded.length, utf8);
  }
}

function text(bytes: Buffer, from: number, to: number, utf8: boolean): string {
  const latin1 = bytes.toString('latin1', from, to);
  return utf8 && /[\x80-\xff]/.test(latin1) ? bytes.toString('utf8', from, to) : latin1;
}

function isName(name: string): boolean {
  const bare = name.startsWith(':') ? name.slice(1) : name;
  return bare !== '' && !wrongInName.test(bare);
}

function broken(what: string): ConnectionError {
  return new ConnectionError(errorCode.compression, `header block: ${what}`);
}
