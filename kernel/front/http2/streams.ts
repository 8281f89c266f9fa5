/**
 * The streams of one connection: which there are, were, and may still be, and what the frames that come for one do to it, within the windows of both sides
 * (RFC 9113, sections 5.1 and 5.2).
 */
import { OpenCalls } from '../../bus/open-calls.ts';
import type { FloodGuard } from './flood.ts';
import {
  ConnectionError,
  errorCode,
  frameFlag,
  headerFrames,
  largestWindow,
  protocolError,
  rstStreamFrame,
  windowUpdateFrame,
} from './frames.ts';
import { emptyTable } from './header-block.ts';
import type { HeaderBlock } from './hpack.ts';
import type { Output } from './output.ts';
import { unpadded } from './padding.ts';
import { RecentIds } from './recent-ids.ts';
import type { SendQueue } from './send-queue.ts';
import type { PeerSettings } from './settings.ts';
import { ServerStream, type StreamWire } from './stream.ts';

/** What the peer may send on all streams before it is given more. It is given back on arrival, whatever becomes of the bytes: a stream that stalls must not stall the others. */
export const connectionWindow = 16 * 1024 * 1024;

/** What the streams share with their connection. */
export interface StreamsWorld {
  readonly output: Output;
  readonly sending: SendQueue;
  readonly peer: PeerSettings;
  readonly flood: FloodGuard;
  readonly maxStreams: number;
  readonly handler: {
    /** A request has begun. Sets the stream's handler, or answers at once. */
    request(stream: ServerStream, block: HeaderBlock): void;
  };
  /** No stream is open any more, and none will be. */
  readonly done: () => void;
}

export class Streams implements StreamWire {
  readonly #output: Output;
  readonly #sending: SendQueue;
  readonly #peer: PeerSettings;
  readonly #flood: FloodGuard;
  readonly #maxStreams: number;
  readonly #handler: StreamsWorld['handler'];
  readonly #done: () => void;
  readonly #streams = new OpenCalls<ServerStream>(1);
  /** Frames for them may still be on their way. */
  readonly #resetByUs = new RecentIds(1024);
  #lastId = 0;
  #lastAccepted = largestWindow;
  #received = 0;
  #lost = false;

  constructor({ output, sending, peer, flood, maxStreams, handler, done }: StreamsWorld) {
    this.#output = output;
    this.#sending = sending;
    this.#peer = peer;
    this.#flood = flood;
    this.#maxStreams = maxStreams;
    this.#handler = handler;
    this.#done = done;
  }

  /** Streams that are open in either direction. */
  get size(): number {
    return this.#streams.size;
  }

  /** The last that the peer has opened; 0 before the first. */
  get lastId(): number {
    return this.#lastId;
  }

  /** New ones are not taken any more. */
  get draining(): boolean {
    return this.#lastAccepted !== largestWindow;
  }

  drain(): void {
    this.#lastAccepted = this.#lastId;
  }

  /** The connection is gone, and every stream with it. */
  lost(): void {
    this.#lost = true;
    const streams = this.#streams.values();
    this.#streams.clear();
    this.#sending.clear();
    for (const stream of streams) {
      stream.ended = true;
      stream.remoteEnded = true;
      stream.handler?.aborted(errorCode.cancel);
    }
  }

  /** DATA has come. @throws ConnectionError */
  data(flags: number, streamId: number, payload: Buffer): void {
    if (streamId > this.#lastId) throw protocolError(`DATA on stream ${streamId}, which is idle`);
    this.#received += payload.length;
    if (this.#received > connectionWindow)
      throw new ConnectionError(errorCode.flowControl, 'more than the window of the connection');
    if (this.#received >= connectionWindow / 2) {
      this.#output.add(windowUpdateFrame(0, this.#received));
      this.#received = 0;
    }
    const bytes = unpadded(flags, payload);
    const last = (flags & frameFlag.endStream) !== 0;
    if (bytes.length === 0 && !last) this.#flood.control();
    const stream = this.#streams.get(streamId);
    if (stream === undefined || stream.remoteEnded) {
      if (this.#resetByUs.has(streamId) || streamId > this.#lastAccepted) this.#flood.control();
      else if (stream === undefined) this.#refuse(streamId, errorCode.streamClosed);
      else this.#fault(stream, errorCode.streamClosed);
      return;
    }
    stream.receiveWindow -= payload.length;
    if (stream.receiveWindow < 0) {
      this.#fault(stream, errorCode.flowControl);
      return;
    }
    stream.received += bytes.length;
    this.#deliver(stream, bytes, last);
    if (!last) stream.consumed(payload.length);
  }

  #deliver(stream: ServerStream, bytes: Buffer, last: boolean): void {
    stream.remoteEnded = last;
    stream.handler?.data(bytes, last);
    if (last && stream.ended) this.#forget(stream);
  }

  /** HEADERS have come, with all that belongs to them. @throws ConnectionError */
  block(streamId: number, endStream: boolean, selfDependent: boolean, block: HeaderBlock): void {
    const open = this.#streams.get(streamId);
    if (open !== undefined) {
      // Trailers. gRPC's clients have none, and nobody reads them.
      const malformed = !endStream || block.fields.some(({ name, valid }) => !valid || name.startsWith(':'));
      if (open.remoteEnded) this.#fault(open, errorCode.streamClosed);
      else if (malformed) this.#fault(open, errorCode.protocol);
      else this.#deliver(open, Buffer.alloc(0), true);
      return;
    }
    if (streamId <= this.#lastId) {
      if (this.#resetByUs.has(streamId)) return;
      throw new ConnectionError(errorCode.streamClosed, `HEADERS on stream ${streamId}, which has ended`);
    }
    this.#lastId = streamId;
    // Opened after our GOAWAY: the client knows that it was not served.
    if (streamId > this.#lastAccepted) return;
    const refusal = selfDependent
      ? errorCode.protocol
      : this.#streams.size >= this.#maxStreams
        ? errorCode.refusedStream
        : undefined;
    if (refusal !== undefined) {
      this.#refuse(streamId, refusal);
      return;
    }
    const stream = new ServerStream(streamId, this.#peer.initialWindow, this);
    stream.remoteEnded = endStream;
    this.#streams.add(stream);
    this.#handler.request(stream, block);
  }

  /** The peer's SETTINGS make the windows of all streams so much wider, or narrower. @throws ConnectionError */
  resize(change: number): void {
    // Such a frame makes us walk over all streams.
    this.#flood.control(this.#streams.size / 64);
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > largestWindow) throw new ConnectionError(errorCode.flowControl, 'a window overflows');
      if (change > 0) this.#sending.add(stream);
    }
    this.#sending.pump();
  }

  /** WINDOW_UPDATE has come, for a stream or for all. @throws ConnectionError */
  windowUpdate(streamId: number, payload: Buffer): void {
    this.#flood.control();
    const bytes = payload.readUInt32BE(0) & largestWindow;
    if (streamId === 0) {
      if (bytes === 0) throw protocolError('WINDOW_UPDATE of 0');
      this.#sending.widen(bytes);
      return;
    }
    if (streamId > this.#lastId) throw protocolError(`WINDOW_UPDATE on stream ${streamId}, which is idle`);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.sendWindow += bytes;
    if (bytes === 0) this.#fault(stream, errorCode.protocol);
    else if (stream.sendWindow > largestWindow) this.#fault(stream, errorCode.flowControl);
    else this.pump(stream);
  }

  /** RST_STREAM has come. @throws ConnectionError */
  rstStream(streamId: number, payload: Buffer): void {
    if (streamId > this.#lastId) throw protocolError(`RST_STREAM on stream ${streamId}, which is idle`);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#flood.control();
      return;
    }
    if (!stream.answered) this.#flood.reset();
    this.#abort(stream, payload.readUInt32BE(0));
  }

  /** The peer has broken the rules on one stream. */
  #fault(stream: ServerStream, code: number): void {
    this.#flood.control();
    this.#refuse(stream.id, code);
    this.#abort(stream, code);
  }

  #refuse(streamId: number, code: number): void {
    this.#flood.control();
    this.#resetByUs.add(streamId);
    this.#output.add(rstStreamFrame(streamId, code));
  }

  #abort(stream: ServerStream, code: number): void {
    stream.ended = true;
    stream.remoteEnded = true;
    this.#forget(stream);
    stream.handler?.aborted(code);
  }

  #forget(stream: ServerStream): void {
    this.#streams.delete(stream.id);
    if (this.#lastAccepted !== largestWindow && this.#streams.size === 0) this.#done();
  }

  headers(stream: ServerStream, block: Uint8Array, endStream: boolean): void {
    if (this.#lost) return;
    let bytes = block;
    if (this.#peer.tableChanged) {
      this.#peer.tableChanged = false;
      bytes = Buffer.concat([emptyTable, block]);
    }
    this.#output.add(headerFrames(stream.id, bytes, endStream, this.#peer.maxFrameSize));
  }

  widen(stream: ServerStream, bytes: number): void {
    if (!this.#lost) this.#output.add(windowUpdateFrame(stream.id, bytes));
  }

  close(stream: ServerStream, code: number | undefined): void {
    if (this.#lost) return;
    if (code !== undefined) {
      this.#resetByUs.add(stream.id);
      this.#output.add(rstStreamFrame(stream.id, code));
    }
    this.#forget(stream);
  }

  pump(stream: ServerStream): void {
    if (this.#lost) return;
    this.#sending.add(stream);
    this.#sending.pump();
  }
}
