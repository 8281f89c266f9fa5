/**
 * The server's side of one HTTP/2 connection (RFC 9113): a socket's bytes → frames, each at its time and for whom it is; farewells, and an end for peers that do
 * not keep to the rules. It knows nothing of what a request means.
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
  largestWindow,
  pingFrame,
  protocolError,
  settingsAck,
  windowUpdateFrame,
} from './frames.ts';
import { HeaderReader } from './header-reader.ts';
import type { HeaderBlock } from './hpack.ts';
import { Output } from './output.ts';
import { SendQueue } from './send-queue.ts';
import { PeerSettings, type ServerLimits, serverSettings } from './settings.ts';
import type { ServerStream } from './stream.ts';
import { connectionWindow, Streams } from './streams.ts';

export interface ConnectionHandler {
  /** A request has begun. Sets the stream's handler, or answers at once. */
  request(stream: ServerStream, block: HeaderBlock): void;
  /** The connection is gone, with all its streams; called once. `reason` is set when it was our decision. */
  closed(reason: string | undefined): void;
}

/** Acknowledgements and answers that a peer may leave unread in the socket. */
const unreadLimit = 4 * 1024 * 1024;

export class Http2Connection implements FrameSink {
  readonly socket: Duplex;
  readonly #handler: ConnectionHandler;
  readonly #reader = new FrameReader(this);
  readonly #headers: HeaderReader;
  readonly #flood = new FloodGuard();
  readonly #peer = new PeerSettings();
  readonly #output: Output;
  readonly #sending: SendQueue;
  readonly #streams: Streams;
  #greeted = false;
  #configured = false;
  #closed = false;
  /** Bytes have come since the last `tick`. */
  #active = false;
  #silentTicks = 0;

  constructor(socket: Duplex, limits: ServerLimits, handler: ConnectionHandler) {
    this.socket = socket;
    this.#handler = handler;
    this.#headers = new HeaderReader({ maxListSize: limits.maxHeaderSize, maxFields: 256 });
    this.#output = new Output(socket, () => this.#sending.pump());
    this.#sending = new SendQueue(this.#output, this.#peer, () => this.#flood.sent());
    this.#streams = new Streams({
      output: this.#output,
      sending: this.#sending,
      peer: this.#peer,
      flood: this.#flood,
      maxStreams: limits.maxStreams,
      handler,
      done: () => this.#closeWhenDone(),
    });
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
    return (this.#streams.lastId + 1) >>> 1;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Asks the peer to open its next requests elsewhere, and takes those that are on their way already; after `graceMs` no more (RFC 9113 section 6.8: a GOAWAY that names the
   * greatest id, and later one that names the last).
   */
  leave(graceMs: number): void {
    if (this.#closed || this.#streams.draining) return;
    this.#output.add(goawayFrame(largestWindow, errorCode.none));
    setTimeout(() => this.drain(), graceMs).unref();
  }

  /** No new requests; those that run go on. */
  drain(): void {
    if (this.#closed || this.#streams.draining) return;
    this.#streams.drain();
    this.#output.add(goawayFrame(this.#streams.lastId, errorCode.none));
    this.#closeWhenDone();
  }

  /** Tells the peer why, and closes. `reason` is for the log too, and `told` for the peer where that is another text. */
  end(code: number, reason: string | undefined, told = reason): void {
    if (this.#closed) return;
    this.#output.add(goawayFrame(this.#streams.lastId, code, told));
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
      throw protocolError('SETTINGS do not come first');
    if (this.#headers.open && (type !== frameType.continuation || streamId !== this.#headers.streamId)) {
      throw protocolError('a header block is interrupted');
    }
    checkFrame(type, flags, streamId, payload.length);
    switch (type) {
      case frameType.data:
        this.#streams.data(flags, streamId, payload);
        return;
      case frameType.headers:
        if (streamId % 2 === 0) throw protocolError(`HEADERS on stream ${streamId}`);
        this.#block(this.#headers.begin(flags, streamId, payload));
        return;
      case frameType.continuation:
        if (!this.#headers.open) throw protocolError('CONTINUATION of nothing');
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
        this.#streams.windowUpdate(streamId, payload);
        return;
      case frameType.rstStream:
        this.#streams.rstStream(streamId, payload);
        return;
      case frameType.priority:
        this.#flood.control();
        if ((payload.readUInt32BE(0) & largestWindow) === streamId) throw protocolError('a stream depends on itself');
        return;
      default:
        this.#flood.control();
    }
  }

  #block(block: HeaderBlock | undefined): void {
    if (block === undefined) return;
    const { streamId, endStream, selfDependent } = this.#headers;
    this.#streams.block(streamId, endStream, selfDependent, block);
  }

  #settings(flags: number, payload: Buffer): void {
    this.#flood.control();
    if ((flags & frameFlag.ack) !== 0) {
      if (!this.#configured) throw protocolError('SETTINGS do not come first');
      return;
    }
    const before = this.#peer.initialWindow;
    this.#peer.apply(payload);
    this.#configured = true;
    this.#output.add(settingsAck);
    const change = this.#peer.initialWindow - before;
    if (change !== 0) this.#streams.resize(change);
  }

  #closeWhenDone(): void {
    if (this.#streams.size > 0 || this.#closed || this.socket.writableEnded) return;
    this.#output.flush();
    this.#endSocket();
  }

  #gone(reason: string | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#streams.lost();
    this.#handler.closed(reason);
  }
}
