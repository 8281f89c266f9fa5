/**
 * Frames ↔ bytes. The only importer of msgpackr, and the only place that decides how bytes change hands:
 * small ones ride in the batch, whose buffer is exact in size and transferred; large ones go through a slab (slab.ts).
 */
// The package's main entry brings streams and a native string reader along: 1.4 MB in each worker (measured) for headers of sixty bytes.
import { Packr, RESET_BUFFER_MODE, REUSE_BUFFER_MODE } from 'msgpackr/pack';
import { Unpackr } from 'msgpackr/unpack';
import type { Frame, FrameKind } from './frames.ts';

// Records and structures are off: they are state that both ends must share, and a reload would have to hand it over.
const packr = new Packr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/** What the packer returns when its memory is used again: all of that, and where the last value lies. */
type Packed = Uint8Array & { readonly start: number; readonly end: number };

/** Set in the payload length: the payload is an 8-byte slab reference (u32le first slot, u32le bytes). */
const inSlab = 0x8000_0000;

/** A batch's buffer when it is new, and the size above which an emptied one is not kept. */
const firstBytes = 4096;
const keptBytes = 256 * 1024;

/** The frames of one tick and one priority, before they are posted: written behind one another into a buffer that is used again. */
export class Batch {
  #buffer: Uint8Array = new Uint8Array(0);
  #view = new DataView(this.#buffer.buffer);
  #at = 0;
  #frames = 0;

  /** How many have been added. */
  get frames(): number {
    return this.#frames;
  }

  add(header: readonly unknown[], payload: Uint8Array | undefined, slab = false): void {
    // The packer's own memory, which the next pack() writes on, and not a view of it made for each frame: copied at once.
    const packed = packr.pack(header, REUSE_BUFFER_MODE | RESET_BUFFER_MODE) as Packed;
    const { start, end } = packed;
    const length = end - start;
    const payloadLength = payload === undefined ? 0 : payload.byteLength;
    this.#room(8 + length + payloadLength);
    const at = this.#at;
    this.#view.setUint32(at, length, true);
    // 0 is "no payload", so that an empty message can be told from none: lengths are sent plus one.
    this.#view.setUint32(at + 4, payload === undefined ? 0 : slab ? inSlab | payloadLength : payloadLength + 1, true);
    for (let from = start, to = at + 8; from < end; from++, to++) this.#buffer[to] = packed[from]!;
    if (payload !== undefined) this.#buffer.set(payload, at + 8 + length);
    this.#at = at + 8 + length + payloadLength;
    this.#frames += 1;
  }

  /** One exact buffer, to be transferred: a view of Node's pool would ship 64 KiB of other people's bytes with it. */
  take(): Uint8Array<ArrayBuffer> | undefined {
    if (this.#at === 0) return undefined;
    const out = new Uint8Array(this.#buffer.buffer.slice(0, this.#at) as ArrayBuffer);
    this.#at = 0;
    this.#frames = 0;
    if (this.#buffer.byteLength > keptBytes) this.#grow(0);
    return out;
  }

  #room(bytes: number): void {
    if (this.#at + bytes > this.#buffer.byteLength)
      this.#grow(Math.max(this.#at + bytes, this.#buffer.byteLength * 2, firstBytes));
  }

  #grow(bytes: number): void {
    const grown = new Uint8Array(bytes);
    grown.set(this.#buffer.subarray(0, this.#at));
    this.#buffer = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Reads a batch frame by frame, so that a scheduler can stop between two. Throws RangeError on a batch that lies about its lengths. */
export class BatchReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #resolve: (reference: Uint8Array) => Uint8Array;
  #at = 0;

  /** `resolve` turns a slab reference into bytes of the receiver's own. */
  constructor(bytes: Uint8Array, resolve: (reference: Uint8Array) => Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#resolve = resolve;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.byteLength;
  }

  /** Gives up on the rest. */
  abandon(): void {
    this.#at = this.#bytes.byteLength;
  }

  next(): Frame {
    const headerLength = this.#view.getUint32(this.#at, true);
    const marked = this.#view.getUint32(this.#at + 4, true);
    const slab = marked >= inSlab;
    const payloadLength = slab ? marked - inSlab : Math.max(0, marked - 1);
    const start = this.#at + 8;
    const end = start + headerLength + payloadLength;
    if (end > this.#bytes.byteLength)
      throw new RangeError(`frame of ${end - start} bytes in a batch of ${this.#bytes.byteLength}`);
    this.#at = end;
    const header: unknown = unpackr.unpack(this.#bytes, { start, end: start + headerLength });
    if (!Array.isArray(header) || typeof header[0] !== 'number' || !Number.isSafeInteger(header[1])) {
      throw new RangeError('frame header is not an array of kind and id');
    }
    const raw = marked === 0 ? undefined : this.#bytes.subarray(start + headerLength, end);
    return {
      kind: header[0] as FrameKind,
      id: header[1],
      header,
      payload: slab && raw !== undefined ? this.#resolve(raw) : raw,
    };
  }
}
