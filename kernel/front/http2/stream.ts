/** One stream of a connection: what has come for it and what is to go out, within the windows of both sides. */
import { errorCode } from './frames.ts';

/** Who serves a stream. */
export interface StreamHandler {
  /** Bytes of the request; `last`: there are no more. `bytes` may be a view of the socket's read buffer. */
  data(bytes: Buffer, last: boolean): void;
  /** The stream has ended before it was finished: the peer has reset it, or the connection is gone. Nothing is heard after it. */
  aborted(code: number): void;
}

/** What a stream needs of its connection. */
export interface StreamWire {
  headers(stream: ServerStream, block: Uint8Array, endStream: boolean): void;
  /** Sends DATA of the stream as far as windows and socket allow, now or later. */
  pump(stream: ServerStream): void;
  /** Gives the peer `bytes` more to send on the stream. */
  widen(stream: ServerStream, bytes: number): void;
  /** @param code undefined: both sides have ended in order */
  close(stream: ServerStream, code: number | undefined): void;
}

interface Segment {
  readonly bytes: Uint8Array;
  /** Called when the last byte has been handed to the socket. */
  readonly taken: (() => void) | undefined;
}

/** What a peer may send on a stream before it is given more. */
export const streamReceiveWindow = 1024 * 1024;

export class ServerStream {
  readonly id: number;
  readonly #wire: StreamWire;
  handler: StreamHandler | undefined;
  /** Bytes that the peer takes. */
  sendWindow: number;
  /** Bytes that the peer may still send. */
  receiveWindow = streamReceiveWindow;
  /** The peer has ended its side. */
  remoteEnded = false;
  /** Nothing more goes out. */
  ended = false;
  answered = false;
  /** Set by the connection: it waits in the queue of those with data to send. */
  queued = false;
  /** Bytes of the request, for a content-length to be compared with. */
  received = 0;
  #paused = false;
  /** Bytes that were received and not yet given back. */
  #owed = 0;
  readonly #segments: Segment[] = [];
  #offset = 0;
  #trailers: Uint8Array | undefined;

  constructor(id: number, sendWindow: number, wire: StreamWire) {
    this.id = id;
    this.sendWindow = sendWindow;
    this.#wire = wire;
  }

  /** The response's headers, with `endStream` the whole response. */
  respond(block: Uint8Array, endStream = false): void {
    if (this.ended) return;
    this.answered = true;
    this.ended = endStream;
    this.#wire.headers(this, block, endStream);
    if (endStream) this.#finished();
  }

  /** Bytes of the response; they must not change until they are taken. */
  send(bytes: Uint8Array, taken?: () => void): void {
    if (this.ended) return;
    this.#segments.push({ bytes, taken });
    this.#wire.pump(this);
  }

  /** Ends the response after what has been sent. */
  finish(trailers: Uint8Array): void {
    if (this.ended) return;
    this.#trailers = trailers;
    this.#wire.pump(this);
  }

  reset(code: number): void {
    if (this.ended && this.remoteEnded) return;
    this.ended = true;
    this.#segments.length = 0;
    this.#wire.close(this, code);
  }

  /** The peer's window is not opened again until `resume`: at most `streamReceiveWindow` bytes still come. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#giveBack();
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** @internal DATA has come, and has been handed on. */
  consumed(bytes: number): void {
    this.#owed += bytes;
    if (!this.#paused) this.#giveBack();
  }

  #giveBack(): void {
    if (this.remoteEnded || this.ended || this.#owed < streamReceiveWindow / 2) return;
    const bytes = this.#owed;
    this.#owed = 0;
    this.receiveWindow += bytes;
    this.#wire.widen(this, bytes);
  }

  /** @internal Something can be sent, the windows permitting. */
  get sendable(): boolean {
    return this.#segments.length > 0 || this.#trailers !== undefined;
  }

  get hasData(): boolean {
    return this.#segments.length > 0;
  }

  /** @internal Up to `limit` bytes of one segment; undefined when there are none. */
  take(limit: number): Uint8Array | undefined {
    const segment = this.#segments[0];
    if (segment === undefined) return undefined;
    const rest = segment.bytes.length - this.#offset;
    if (rest > limit) {
      const part = segment.bytes.subarray(this.#offset, this.#offset + limit);
      this.#offset += limit;
      return part;
    }
    const part = this.#offset === 0 ? segment.bytes : segment.bytes.subarray(this.#offset);
    this.#offset = 0;
    this.#segments.shift();
    segment.taken?.();
    return part;
  }

  /** @internal All data has been sent: the trailers go. */
  conclude(): void {
    const trailers = this.#trailers;
    if (trailers === undefined || this.ended) return;
    this.#trailers = undefined;
    this.ended = true;
    this.#wire.headers(this, trailers, true);
    this.#finished();
  }

  #finished(): void {
    // A client that still sends is told that nobody listens; it is no error.
    this.#wire.close(this, this.remoteEnded ? undefined : errorCode.none);
  }
}
