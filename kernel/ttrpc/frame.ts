/**
 * The ttrpc frame: a 10-byte header and at most 4 MiB of body (github.com/containerd/ttrpc, PROTOCOL.md).
 *
 *     0        4            8      9       10
 *     | length | stream id  | type | flags | body …
 *      u32 BE   u32 BE       u8     u8
 *
 * A client numbers its streams 1, 3, 5, …; a response carries the number of its request.
 */

export const frameTypes = { request: 1, response: 2, data: 3 } as const;

/** Bits of a frame's flags. A unary call has none; streams say with them which side is done. */
export const frameFlags = { remoteClosed: 1, remoteOpen: 2, noData: 4 } as const;

export const headerBytes = 10;

/** Largest body that either side sends or keeps. Go's ttrpc has the same figure, so a larger frame is a fault or an attack. */
export const maxBodyBytes = 4 << 20;

export interface Frame {
  readonly streamId: number;
  /** One of `frameTypes`, or whatever else the peer sent. */
  readonly type: number;
  readonly flags: number;
  /** `undefined` when the body was larger than the limit and has been skipped; `bodyBytes` then still says what was announced. */
  readonly body: Uint8Array | undefined;
  readonly bodyBytes: number;
}

/** Header and body in one buffer, so that one frame is one write. The caller has checked the size. */
export function encodeFrame(streamId: number, type: number, flags: number, body: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headerBytes + body.length);
  frame.writeUInt32BE(body.length, 0);
  frame.writeUInt32BE(streamId, 4);
  frame[8] = type;
  frame[9] = flags;
  frame.set(body, headerBytes);
  return frame;
}

/** First allocation for a body that comes in pieces; it doubles from there, so that a slow writer costs no more than twice what it sent. */
const firstBodyBytes = 16 << 10;

/**
 * Cuts a byte stream into frames. Memory follows what has arrived, never what a header announces: an oversized body is
 * counted off and dropped as it comes, so that the stream stays in step and the peer can be told which call was too large.
 */
export class FrameDecoder {
  readonly #header = Buffer.alloc(headerBytes);
  readonly #limit: number;
  #headerFill = 0;
  #length = 0;
  #seen = 0;
  #body: Uint8Array = new Uint8Array(0);

  constructor(limit = maxBodyBytes) {
    this.#limit = limit;
  }

  /** Part of a frame is held: a stream that ends now was cut. */
  get midFrame(): boolean {
    return this.#headerFill > 0;
  }

  /** The frames that `chunk` completes, in order. Bodies may be views of `chunk`. */
  *push(chunk: Uint8Array): Generator<Frame> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headerFill < headerBytes) {
        const piece = chunk.subarray(at, at + headerBytes - this.#headerFill);
        this.#header.set(piece, this.#headerFill);
        this.#headerFill += piece.length;
        at += piece.length;
        if (this.#headerFill < headerBytes) return;
        this.#length = this.#header.readUInt32BE(0);
      }
      const piece = chunk.subarray(at, at + this.#length - this.#seen);
      at += piece.length;
      if (this.#length <= this.#limit) this.#keep(piece);
      this.#seen += piece.length;
      if (this.#seen < this.#length) return;
      yield this.#finish();
    }
  }

  #keep(piece: Uint8Array): void {
    if (piece.length === this.#length) {
      this.#body = piece;
      return;
    }
    const end = this.#seen + piece.length;
    if (end > this.#body.length) {
      const grown = new Uint8Array(Math.min(this.#length, Math.max(firstBodyBytes, end, this.#body.length * 2)));
      grown.set(this.#body.subarray(0, this.#seen));
      this.#body = grown;
    }
    this.#body.set(piece, this.#seen);
  }

  #finish(): Frame {
    const frame: Frame = {
      streamId: this.#header.readUInt32BE(4),
      type: this.#header[8] ?? 0,
      flags: this.#header[9] ?? 0,
      body: this.#length <= this.#limit ? this.#body : undefined,
      bodyBytes: this.#length,
    };
    this.#headerFill = 0;
    this.#seen = 0;
    this.#body = new Uint8Array(0);
    return frame;
  }
}
