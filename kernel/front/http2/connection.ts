/**
 * The server's side of one HTTP/2 connection (RFC 9113): frames → streams, windows in both directions, and an end for peers that do not keep to it.
 * It knows nothing of what a request means.
 */
import type { Duplex } from 'node:stream';
import { FloodGuard } from './flood.ts';
import { checkFrame } from './frame-rules.ts';
import { FrameReader, type FrameSink } from './frame-reader.ts';
import {
  ConnectionError,
  defaultWindow,
  errorCode,
  frameFlag,
  frameType,
  goawayFrame,
  headerFrames,
  largestWindow,
  pingFrame,
  rstStreamFrame,
  settingsAck,
  windowUpdateFrame,
} from './frames.ts';
import { emptyTable } from './header-block.ts';
import { HeaderReader } from './header-reader.ts';
import type { HeaderBlock } from './hpack.ts';
import { Output } from './output.ts';
import { unpadded } from './padding.ts';
import { SendQueue } from './send-queue.ts';
import { RecentIds } from './recent-ids.ts';
import { PeerSettings, type ServerLimits, serverSettings } from './settings.ts';
import { ServerStream, type StreamWire } from './stream.ts';

export interface ConnectionHandler {
  /** A request has begun. Sets the stream's handler, or answers at once. */
  request(stream: ServerStream, block: HeaderBlock): void;
  /** The connection is gone, with all its streams; called once. `reason` is set when it was our decision. */
  closed(reason: string | undefined): void;
}

/** What the peer may send on all streams before it is given more. It is given back on arrival, whatever becomes of the bytes: a stream that stalls must not stall the others. */
const connectionWindow = 16 * 1024 * 1024;
/** Acknowledgements and answers that a peer may leave unread in the socket. */
const unreadLimit = 4 * 1024 * 1024;
export class Http2Connection implements FrameSink, StreamWire {
  readonly socket: Duplex;
  readonly #handler: ConnectionHandler;
  readonly #limits: ServerLimits;
  readonly #reader = new FrameReader(this);
  readonly #headers: HeaderReader;
  readonly #flood = new FloodGuard();
  readonly #peer = new PeerSettings();
  readonly #output: Output;
  readonly #streams = new Map<number, ServerStream>();
  readonly #sending: SendQueue;
  /** Frames for them may still be on their way. */
  readonly #resetByUs = new RecentIds(1024);
  #lastId = 0;
  #received = 0;
  #greeted = false;
  #configured = false;
  #closed = false;
  #lastAccepted = largestWindow;
  /** Bytes have come since the last `tick`. */
  #active = false;
  #silentTicks = 0;

  constructor(socket: Duplex, limits: ServerLimits, handler: ConnectionHandler) {
    this.socket = socket;
    this.#limits = limits;
    this.#handler = handler;
    this.#headers = new HeaderReader({ maxListSize: limits.maxHeaderSize, maxFields: 256 });
    this.#output = new Output(socket, () => this.#sending.pump());
    this.#sending = new SendQueue(this.#output, this.#peer, () => this.#flood.sent());
    this.#output.add(serverSettings(limits));
    this.#output.add(windowUpdateFrame(0, connectionWindow - defaultWindow));
    socket.on('data', (chunk: Buffer) => this.#chunk(chunk));
    socket.on('drain', () => this.#sending.pump());
    // The socket tells why in its 'close'.
    socket.on('error', () => {});
    socket.on('end', () => this.destroy());
    socket.on('close', () => this.#gone(undefined));
  }

  /** Streams that are open in either direction. */
  get streams(): number {
    return this.#streams.size;
  }

  /** The preface and the first SETTINGS have come. */
  get ready(): boolean {
    return this.#configured;
  }

  get requests(): number {
    return (this.#lastId + 1) >>> 1;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Asks the peer to open its next requests elsewhere, and takes those that are on their way already; after `graceMs` no more (RFC 9113 section 6.8: a GOAWAY that names the
   * greatest id, and later one that names the last).
   */
  leave(graceMs: number): void {
    if (this.#closed || this.#lastAccepted !== largestWindow) return;
    this.#output.add(goawayFrame(largestWindow, errorCode.none));
    setTimeout(() => this.drain(), graceMs).unref();
  }

  /** No new requests; those that run go on. */
  drain(): void {
    if (this.#closed || this.#lastAccepted !== largestWindow) return;
    this.#lastAccepted = this.#lastId;
    this.#output.add(goawayFrame(this.#lastId, errorCode.none));
    this.#closeWhenDone();
  }

  /** Tells the peer why, and closes. `reason` is for the log too, and `told` for the peer where that is another text. */
  end(code: number, reason: string | undefined, told = reason): void {
    if (this.#closed) return;
    this.#output.add(goawayFrame(this.#lastId, code, told));
    this.#output.flush();
    this.#gone(reason);
    this.#endSocket();
  }

  /** One that does not read its GOAWAY, or does not leave, does not keep the socket. */
  #endSocket(): void {
    this.socket.end();
    setTimeout(() => this.socket.destroy(), 1000).unref();
  }

  destroy(reason?: string): void {
    this.#gone(reason);
    this.socket.destroy();
  }

  /** Once a second. @param keepalive a silent peer is asked after 30 s, and given up 10 s later */
  tick(keepalive: boolean): void {
    this.#flood.tick();
    this.#output.relax();
    this.#silentTicks = this.#active ? 0 : this.#silentTicks + 1;
    this.#active = false;
    if (!keepalive || this.#closed) return;
    if (this.#silentTicks === 30) this.#output.add(pingFrame(Buffer.alloc(8), false));
    if (this.#silentTicks >= 40) this.destroy('the peer is silent');
  }

  #chunk(chunk: Buffer): void {
    if (this.#closed) return;
    this.#active = true;
    try {
      this.#reader.push(chunk);
      if (this.#output.pending > unreadLimit && this.#output.full) {
        throw new ConnectionError(errorCode.enhanceYourCalm, 'answers are not read');
      }
    } catch (error) {
      if (this.#closed) return;
      if (error instanceof ConnectionError) this.end(error.code, error.message);
      // A defect of ours that one client can bring about must not take the others' connections with it: it is told in the log.
      else this.end(errorCode.internal, error instanceof Error ? String(error.stack) : String(error), 'internal error');
    }
  }

  /** @internal */
  greeted(): void {
    this.#greeted = true;
  }

  /** @internal */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (this.#closed) return;
    if (!this.#configured && (!this.#greeted || type !== frameType.settings))
      throw protocol('SETTINGS do not come first');
    if (this.#headers.open && (type !== frameType.continuation || streamId !== this.#headers.streamId)) {
      throw protocol('a header block is interrupted');
    }
    checkFrame(type, flags, streamId, payload.length);
    switch (type) {
      case frameType.data:
        this.#data(flags, streamId, payload);
        return;
      case frameType.headers:
        if (streamId % 2 === 0) throw protocol(`HEADERS on stream ${streamId}`);
        this.#block(this.#headers.begin(flags, streamId, payload));
        return;
      case frameType.continuation:
        if (!this.#headers.open) throw protocol('CONTINUATION of nothing');
        this.#block(this.#headers.proceed(flags, payload));
        return;
      case frameType.settings:
        this.#settings(flags, payload);
        return;
      case frameType.ping:
        this.#flood.control();
        if ((flags & frameFlag.ack) === 0) this.#output.add(pingFrame(payload, true));
        return;
      case frameType.windowUpdate:
        this.#windowUpdate(streamId, payload);
        return;
      case frameType.rstStream:
        this.#rstStream(streamId, payload);
        return;
      case frameType.priority:
        this.#flood.control();
        if ((payload.readUInt32BE(0) & largestWindow) === streamId) throw protocol('a stream depends on itself');
        return;
      default:
        this.#flood.control();
    }
  }

  #data(flags: number, streamId: number, payload: Buffer): void {
    if (streamId > this.#lastId) throw protocol(`DATA on stream ${streamId}, which is idle`);
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

  #block(block: HeaderBlock | undefined): void {
    if (block === undefined) return;
    const { streamId, endStream, selfDependent } = this.#headers;
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
      : this.#streams.size >= this.#limits.maxStreams
        ? errorCode.refusedStream
        : undefined;
    if (refusal !== undefined) {
      this.#refuse(streamId, refusal);
      return;
    }
    const stream = new ServerStream(streamId, this.#peer.initialWindow, this);
    stream.remoteEnded = endStream;
    this.#streams.set(streamId, stream);
    this.#handler.request(stream, block);
  }

  #settings(flags: number, payload: Buffer): void {
    this.#flood.control();
    if ((flags & frameFlag.ack) !== 0) {
      if (!this.#configured) throw protocol('SETTINGS do not come first');
      return;
    }
    const before = this.#peer.initialWindow;
    this.#peer.apply(payload);
    this.#configured = true;
    this.#output.add(settingsAck);
    const change = this.#peer.initialWindow - before;
    if (change === 0) return;
    // Such a frame makes us walk over all streams.
    this.#flood.control(this.#streams.size / 64);
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > largestWindow) throw new ConnectionError(errorCode.flowControl, 'a window overflows');
      if (change > 0) this.#sending.add(stream);
    }
    this.#sending.pump();
  }

  #windowUpdate(streamId: number, payload: Buffer): void {
    this.#flood.control();
    const bytes = payload.readUInt32BE(0) & largestWindow;
    if (streamId === 0) {
      if (bytes === 0) throw protocol('WINDOW_UPDATE of 0');
      this.#sending.widen(bytes);
      return;
    }
    if (streamId > this.#lastId) throw protocol(`WINDOW_UPDATE on stream ${streamId}, which is idle`);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.sendWindow += bytes;
    if (bytes === 0) this.#fault(stream, errorCode.protocol);
    else if (stream.sendWindow > largestWindow) this.#fault(stream, errorCode.flowControl);
    else this.pump(stream);
  }

  #rstStream(streamId: number, payload: Buffer): void {
    if (streamId > this.#lastId) throw protocol(`RST_STREAM on stream ${streamId}, which is idle`);
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
    this.#closeWhenDone();
  }

  #closeWhenDone(): void {
    if (this.#lastAccepted === largestWindow || this.#streams.size > 0 || this.#closed || this.socket.writableEnded)
      return;
    this.#output.flush();
    this.#endSocket();
  }

  #gone(reason: string | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#sending.clear();
    for (const stream of streams) {
      stream.ended = true;
      stream.remoteEnded = true;
      stream.handler?.aborted(errorCode.cancel);
    }
    this.#handler.closed(reason);
  }

  /** @internal */
  headers(stream: ServerStream, block: Uint8Array, endStream: boolean): void {
    if (this.#closed) return;
    let bytes = block;
    if (this.#peer.tableChanged) {
      this.#peer.tableChanged = false;
      bytes = Buffer.concat([emptyTable, block]);
    }
    this.#output.add(headerFrames(stream.id, bytes, endStream, this.#peer.maxFrameSize));
  }

  /** @internal */
  widen(stream: ServerStream, bytes: number): void {
    if (!this.#closed) this.#output.add(windowUpdateFrame(stream.id, bytes));
  }

  /** @internal */
  close(stream: ServerStream, code: number | undefined): void {
    if (this.#closed) return;
    if (code !== undefined) {
      this.#resetByUs.add(stream.id);
      this.#output.add(rstStreamFrame(stream.id, code));
    }
    this.#forget(stream);
  }

  /** @internal */
  pump(stream: ServerStream): void {
    if (this.#closed) return;
    this.#sending.add(stream);
    this.#sending.pump();
  }
}

function protocol(what: string): ConnectionError {
  return new ConnectionError(errorCode.protocol, what);
}
