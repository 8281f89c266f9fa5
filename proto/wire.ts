/**
 * Protobuf's wire format (protobuf.dev/programming-guides/encoding), as much of it as the generated codecs use.
 *
 * Our own because of what a library costs here: `@bufbuild/protobuf/wire` brings reflection along, 3.4 MB in each worker (measured) and there are
 * fifteen. `bytes` are views into the input; strings must be UTF-8; whatever the input says, nothing is allocated beyond it.
 */
import { isUtf8 } from 'node:buffer';
import { markAsUntransferable } from 'node:worker_threads';
import { own } from './owned.ts';

const wireType = { varint: 0, fixed64: 1, delimited: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;
const maxGroups = 100;

export class BinaryReader {
  pos = 0;
  readonly len: number;
  readonly #bytes: Uint8Array;
  #buffer: Buffer | undefined;
  #view: DataView | undefined;
  /** High 32 bits of the varint read last. */
  #high = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.len = bytes.length;
  }

  /** Whether the message that ends there has another field. @throws RangeError when the one before reached beyond it */
  more(end: number): boolean {
    if (this.pos > end) throw new RangeError('field reaches beyond its message');
    return this.pos < end;
  }

  /** Field number and wire type. @throws RangeError for a number that no field can have */
  tag(): number {
    const first = this.#bytes[this.pos];
    // Numbers up to 15, as nearly all are.
    if (first !== undefined && first < 0x80 && first >= 8) {
      this.pos += 1;
      return first;
    }
    const tag = this.#varint();
    if (this.#high !== 0 || tag < 8) throw new RangeError('field number is none');
    return tag;
  }

  /** @throws RangeError at the end of the input, and for a varint of more than 64 bits */
  uint32(): number {
    const first = this.#bytes[this.pos];
    if (first === undefined) throw premature();
    if (first < 0x80) {
      this.pos += 1;
      return first;
    }
    return this.#varint();
  }

  int32(): number {
    return this.uint32() | 0;
  }

  bool(): boolean {
    // Any bit of all 64 counts.
    const low = this.#varint();
    return low !== 0 || this.#high !== 0;
  }

  uint64(): bigint {
    const low = this.#varint();
    return this.#high === 0 ? BigInt(low) : (BigInt(this.#high) << 32n) | BigInt(low);
  }

  int64(): bigint {
    const low = this.#varint();
    if (this.#high === 0) return BigInt(low);
    return (BigInt(this.#high | 0) << 32n) | BigInt(low);
  }

  double(): number {
    this.#need(8);
    this.#view ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    const value = this.#view.getFloat64(this.pos, true);
    this.pos += 8;
    return value;
  }

  /** A view into the input. */
  bytes(): Uint8Array {
    const length = this.uint32();
    this.#need(length);
    const from = this.pos;
    this.pos += length;
    return this.#bytes.subarray(from, this.pos);
  }

  /** @throws RangeError for what is not UTF-8: the text would not be what was sent */
  string(): string {
    const length = this.uint32();
    if (length === 0) return '';
    this.#need(length);
    this.#buffer ??= Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    const from = this.pos;
    this.pos += length;
    const text = this.#buffer.toString(undefined, from, this.pos);
    if (text.includes('\ufffd') && !isUtf8(this.#bytes.subarray(from, this.pos)))
      throw new RangeError('string field contains invalid UTF-8');
    return text;
  }

  skip(type: number): void {
    let groups = 0;
    let current = type;
    for (;;) {
      switch (current) {
        case wireType.varint:
          this.#varint();
          break;
        case wireType.fixed64:
          this.#advance(8);
          break;
        case wireType.delimited:
          this.#advance(this.uint32());
          break;
        case wireType.fixed32:
          this.#advance(4);
          break;
        case wireType.startGroup:
          groups += 1;
          if (groups > maxGroups) throw new RangeError(`groups nested more than ${maxGroups} deep`);
          break;
        case wireType.endGroup:
          groups -= 1;
          if (groups < 0) throw new RangeError('group ends that has not begun');
          break;
        default:
          throw new RangeError(`wire type ${current} does not exist`);
      }
      if (groups === 0) return;
      current = this.tag() & 7;
    }
  }

  /** Low 32 bits; the high ones are left in `#high`. */
  #varint(): number {
    const bytes = this.#bytes;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[this.pos];
      if (byte === undefined) throw premature();
      this.pos += 1;
      if (shift === 63 && byte > 1) break;
      const bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else high |= bits << (shift - 32);
      if (byte < 0x80) {
        this.#high = high >>> 0;
        return low >>> 0;
      }
    }
    throw new RangeError('varint of more than 64 bits');
  }

  #need(length: number): void {
    if (length > this.len - this.pos) throw premature();
  }

  #advance(length: number): void {
    this.#need(length);
    this.pos += length;
  }
}

function premature(): RangeError {
  return new RangeError('message ends within a field');
}

/**
 * Small messages are written where they stay, one behind the other: an encoder is one synchronous run, so the end of this piece of memory belongs to one writer at
 * a time. A buffer of its own for each, grown as it fills, costs more than all that is written into it.
 */
const pieceBytes = 64 * 1024;
/** Larger ones that no room is left for get memory of their own, and no new piece. */
const smallBytes = pieceBytes / 4;
let piece = newPiece();
let free = 0;
let writing: BinaryWriter | undefined;

function newPiece(): Buffer {
  const fresh = Buffer.allocUnsafeSlow(pieceBytes);
  // Transferred with one message, it would take all others with it.
  markAsUntransferable(fresh.buffer);
  return fresh;
}

export class BinaryWriter {
  #buffer: Buffer;
  #pos: number;
  /** Where the message begins. */
  #from: number;
  /** What may be written ends here. */
  #end: number;
  /** Where the messages that are open begin, the first `#depth` of them; one byte is left before each for its length. */
  readonly #open: number[] = [0, 0, 0, 0];
  #depth = 0;
  /** The buffer is this message's and nobody else's. */
  #alone = false;

  constructor() {
    // Somebody began and did not finish.
    if (writing !== undefined) writing.#leave();
    writing = this;
    this.#buffer = piece;
    this.#from = free;
    this.#pos = free;
    this.#end = pieceBytes;
  }

  /** What has been written, without a copy. Nobody writes there any more. */
  finish(): Uint8Array {
    if (writing === this) {
      writing = undefined;
      free = this.#pos;
    }
    // What is written after this goes elsewhere.
    this.#end = this.#pos;
    const { buffer, byteOffset } = this.#buffer;
    const bytes = new Uint8Array(buffer, byteOffset + this.#from, this.#pos - this.#from);
    return this.#alone ? own(bytes) : bytes;
  }

  uint32(value: number): this {
    this.#room(5);
    let rest = value;
    while (rest > 0x7f) {
      this.#buffer[this.#pos++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[this.#pos++] = rest;
    return this;
  }

  int32(value: number): this {
    // Negative ones are sign-extended to 64 bits.
    return value >= 0 ? this.uint32(value) : this.#varint(value >>> 0, 0xffff_ffff);
  }

  bool(value: boolean): this {
    this.#room(1);
    this.#buffer[this.#pos++] = value ? 1 : 0;
    return this;
  }

  uint64(value: bigint): this {
    return this.int64(value);
  }

  int64(value: bigint): this {
    if (value >= 0n && value <= 0xffff_ffffn) return this.uint32(Number(value));
    const bits = BigInt.asUintN(64, value);
    return this.#varint(Number(bits & 0xffff_ffffn), Number(bits >> 32n));
  }

  double(value: number): this {
    this.#room(8);
    this.#buffer.writeDoubleLE(value, this.#pos);
    this.#pos += 8;
    return this;
  }

  bytes(value: Uint8Array): this {
    this.uint32(value.length);
    this.#room(value.length);
    this.#buffer.set(value, this.#pos);
    this.#pos += value.length;
    return this;
  }

  string(value: string): this {
    const units = value.length;
    // A unit of UTF-16 takes three bytes at most; of a long text it is counted, so that its buffer is not three times too large.
    this.#room(5 + (units * 3 <= smallBytes ? units * 3 : Buffer.byteLength(value)));
    const from = this.#pos;
    if (units < 16) {
      let at = 0;
      const buffer = this.#buffer;
      for (; at < units; at++) {
        const code = value.charCodeAt(at);
        if (code > 0x7f) break;
        buffer[from + 1 + at] = code;
      }
      if (at === units) {
        buffer[from] = units;
        this.#pos = from + 1 + units;
        return this;
      }
    }
    this.#pos = from + 1;
    this.#pos += this.#buffer.write(value, this.#pos);
    this.#lead(from + 1);
    return this;
  }

  /** Begins a message within this one; `join` ends it and puts its length before it. */
  fork(): this {
    this.#room(1);
    this.#pos += 1;
    this.#open[this.#depth++] = this.#pos;
    return this;
  }

  join(): this {
    this.#lead(this.#open[--this.#depth]!);
    return this;
  }

  /** Puts its length before what has been written from there on, into the byte that was left for it. */
  #lead(from: number): void {
    const length = this.#pos - from;
    if (length < 0x80) {
      this.#buffer[from - 1] = length;
      return;
    }
    // The length takes more than the byte that was left for it.
    const more = length < 0x4000 ? 1 : length < 0x20_0000 ? 2 : length < 0x1000_0000 ? 3 : 4;
    this.#room(more);
    // Not where it began before that: the message may have moved.
    const to = this.#pos - length;
    this.#buffer.copyWithin(to + more, to, this.#pos);
    const end = this.#pos + more;
    this.#pos = to - 1;
    this.uint32(length);
    this.#pos = end;
  }

  #varint(low: number, high: number): this {
    this.#room(10);
    let [l, h] = [low, high];
    while (h > 0 || l > 0x7f) {
      this.#buffer[this.#pos++] = (l & 0x7f) | 0x80;
      l = ((l >>> 7) | (h << 25)) >>> 0;
      h >>>= 7;
    }
    this.#buffer[this.#pos++] = l;
    return this;
  }

  #room(bytes: number): void {
    if (this.#pos + bytes > this.#end) this.#grow(bytes);
  }

  #grow(bytes: number): void {
    const written = this.#pos - this.#from;
    const needed = written + bytes;
    const old = this.#buffer;
    if (writing === this && needed <= smallBytes) {
      piece = newPiece();
      this.#buffer = piece;
      this.#end = pieceBytes;
    } else {
      if (writing === this) writing = undefined;
      this.#end = Math.max(needed, written * 2);
      this.#buffer = Buffer.allocUnsafeSlow(this.#end);
      this.#alone = true;
    }
    old.copy(this.#buffer, 0, this.#from, this.#pos);
    for (let open = 0; open < this.#depth; open++) this.#open[open]! -= this.#from;
    this.#pos = written;
    this.#from = 0;
  }

  #leave(): void {
    writing = undefined;
    this.#grow(0);
  }
}
