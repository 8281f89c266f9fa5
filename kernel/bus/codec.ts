/**
 * Frames ↔ bytes. The only importer of msgpackr, and the only place that decides how bytes change hands:
 * small ones ride in the batch, whose buffer is exact in size and transferred; large ones go through a slab (slab.ts).
 */
// The package's main entry brings streams and a native string reader along: 1.4 MB in each worker (measured) for headers of sixty bytes.
import { Packr } from 'msgpackr/pack';
import { Unpackr } from 'msgpackr/unpack';
import type { Frame, FrameKind } from './frames.ts';

// Records and structures are off: they are state that both ends must share, and a reload would have to hand it over.
const packr = new Packr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/** Set in the payload length: the payload is an 8-byte slab reference (u32le first slot, u32le bytes). */
const inSlab = 0x8000_0000;

interface Part {
  readonly header: Uint8Array;
  readonly payload: Uint8Array | undefined;
  readonly slab: boolean;
}

/** The frames of one tick and one priority, before they are posted. */
export class Batch {
  #parts: Part[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(header: readonly unknown[], payload: Uint8Array | undefined, slab = false): void {
    // pack() returns a view of a pool that the next pack() writes on; the copy is about 60 bytes.
    const packed = Uint8Array.prototype.slice.call(packr.pack(header)) as Uint8Array;
    this.#parts.push({ header: packed, payload, slab });
    this.#bytes += 8 + packed.byteLength + (payload?.byteLength ?? 0);
  }

  /** One exact buffer, to be transferred: a view of Node's pool would ship 64 KiB of other people's bytes with it. */
  take(): Uint8Array | undefined {
    if (this.#parts.length === 0) return undefined;
    const out = new Uint8Array(this.#bytes);
    const view = new DataView(out.buffer);
    let at = 0;
    for (const { header, payload, slab } of this.#parts) {
      view.setUint32(at, header.byteLength, true);
      // 0 is "no payload", so that an empty message can be told from none: lengths are sent plus one.
      view.setUint32(
        at + 4,
        payload === undefined ? 0 : slab ? inSlab | payload.byteLength : payload.byteLength + 1,
        true,
      );
      out.set(header, at + 8);
      at += 8 + header.byteLength;
      if (payload !== undefined) {
        out.set(payload, at);
        at += payload.byteLength;
      }
    }
    this.#parts = [];
    this.#bytes = 0;
    return out;
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
    const header: unknown = unpackr.unpack(this.#bytes.subarray(start, start + headerLength));
    if (!Array.isArray(header) || typeof header[0] !== 'number' || typeof header[1] !== 'number') {
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
