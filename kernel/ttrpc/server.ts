/**
 * The server end of ttrpc: unary calls as bytes. The daemon serves one service on it, `containerd.services.events.ttrpc.v1.Events`, to its shims;
 * what a call means is the business of `dispatch`, which neither knows nor needs the connection.
 */

import type { Duplex } from 'node:stream';
import { Request, Response } from 'troupe/proto/ttrpc/ttrpc.ts';
import { Failure } from '../sdk/failure.ts';
import { encodeFrame, type Frame, FrameDecoder, frameFlags, frameTypes, maxBodyBytes } from './frame.ts';
import { statusOf } from './status.ts';

/** Longest delay of setTimeout in ms; a later deadline than 24.8 days is none. */
const longestTimer = 0x7fff_ffff;

export interface TtrpcServerCall {
  /** Full name, as `containerd.services.events.ttrpc.v1.Events`. */
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  /** The request's metadata; the namespace is under `containerd-namespace-ttrpc`. A key may have several values. */
  readonly metadata: ReadonlyMap<string, readonly string[]>;
  /** Milliseconds that the client gives this call, or undefined. */
  readonly timeout: number | undefined;
  /** Aborted by the call's deadline (TimeoutError) and by the end of the connection (AbortError). */
  readonly signal: AbortSignal;
}

export interface TtrpcServerOptions<Socket extends Duplex> {
  /** Answers a call with the bytes of its reply; throws a Failure, which becomes the status. */
  readonly dispatch: (call: TtrpcServerCall) => Promise<Uint8Array>;
  /** Decides before the first byte is read; false closes the connection. For the peer's uid. */
  readonly admit?: (socket: Socket) => boolean;
  /** Connections at once, default 4096 (each shim keeps one); more are closed at once. */
  readonly maxConnections?: number;
  /** Calls that run at once for one connection, default 64, and their bytes, default 8 MiB: past either the connection is not read. */
  readonly maxRunning?: number;
  readonly maxRunningBytes?: number;
}

export class TtrpcServer<Socket extends Duplex = Duplex> {
  readonly #options: TtrpcServerOptions<Socket>;
  readonly #connections = new Set<Connection>();

  constructor(options: TtrpcServerOptions<Socket>) {
    this.#options = options;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Takes an accepted socket: `net.createServer((socket) => server.accept(socket))`. */
  accept(socket: Socket): void {
    // A refused peer may reset the connection; without a listener that error would end the thread.
    socket.on('error', () => socket.destroy());
    if (this.#connections.size >= (this.#options.maxConnections ?? 4096) || this.#options.admit?.(socket) === false) {
      socket.destroy();
      return;
    }
    const forget = (): void => void this.#connections.delete(connection);
    const connection = new Connection(socket, this.#options as TtrpcServerOptions<Duplex>, forget);
    this.#connections.add(connection);
  }

  /** Ends every connection; running calls see their signal abort. */
  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}

class Connection {
  readonly #socket: Duplex;
  readonly #options: TtrpcServerOptions<Duplex>;
  readonly #running = new Set<AbortController>();
  readonly #maxRunning: number;
  readonly #maxRunningBytes: number;
  /** Calls of the chunk that filled the limits; no more than one chunk's, since the socket is paused while there are any. */
  #waiting: { streamId: number; request: Request; bytes: number }[] = [];
  #runningBytes = 0;
  #lastId = 0;

  readonly #onEnd: () => void;

  constructor(socket: Duplex, options: TtrpcServerOptions<Duplex>, onEnd: () => void) {
    this.#onEnd = onEnd;
    this.#socket = socket;
    this.#options = options;
    this.#maxRunning = options.maxRunning ?? 64;
    this.#maxRunningBytes = options.maxRunningBytes ?? 8 << 20;
    const decoder = new FrameDecoder();
    socket.on('data', (chunk: Uint8Array) => {
      for (const frame of decoder.push(chunk)) this.#receive(frame);
      this.#advance();
    });
    socket.on('drain', () => this.#advance());
    socket.on('end', () => this.close());
    socket.on('close', () => this.close());
  }

  close(): void {
    this.#socket.destroy();
    this.#waiting = [];
    this.#onEnd();
    for (const controller of this.#running) controller.abort();
  }

  /** Refusals follow Go's server: the stream id is judged first, and a peer that gets it wrong is told and keeps its connection. */
  #receive(frame: Frame): void {
    if (this.#socket.destroyed || frame.type !== frameTypes.request) return;
    try {
      this.#waiting.push({ streamId: frame.streamId, request: this.#parse(frame), bytes: frame.bodyBytes });
    } catch (thrown) {
      this.#answer(frame.streamId, Failure.from(thrown));
    }
  }

  #parse({ streamId, flags, body, bodyBytes }: Frame): Request {
    if (streamId % 2 !== 1) throw new Failure('InvalidArgument', 'StreamID must be odd for client initiated streams');
    if (streamId <= this.#lastId) throw new Failure('InvalidArgument', 'StreamID cannot be re-used and must increment');
    this.#lastId = streamId;
    if (body === undefined) {
      throw new Failure(
        'ResourceExhausted',
        `message length ${bodyBytes} exceed maximum message size of ${maxBodyBytes}`,
      );
    }
    if ((flags & frameFlags.remoteOpen) !== 0) {
      throw new Failure('Unimplemented', 'streaming calls are not served: not implemented');
    }
    try {
      return Request.decode(body);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Failure('InvalidArgument', `unmarshal request: ${reason}: invalid argument`, { cause });
    }
  }

  async #run(streamId: number, request: Request, bytes: number): Promise<void> {
    const controller = new AbortController();
    const timeout = request.timeoutNano > 0n ? Number(request.timeoutNano) / 1e6 : undefined;
    const timer =
      timeout === undefined || timeout > longestTimer
        ? undefined
        : setTimeout(() => controller.abort(new DOMException('context deadline exceeded', 'TimeoutError')), timeout);
    this.#running.add(controller);
    this.#runningBytes += bytes;
    try {
      const metadata = new Map<string, string[]>();
      for (const { key, value } of request.metadata) metadata.set(key, [...(metadata.get(key) ?? []), value]);
      const { service, method, payload } = request;
      const { signal } = controller;
      const work = this.#options.dispatch({ service, method, payload, metadata, timeout, signal });
      const reply = await Promise.race([work, aborted(signal)]);
      const body = Response.encode(Response.fromPartial({ payload: reply })).finish();
      if (body.length > maxBodyBytes) {
        throw new Failure(
          'ResourceExhausted',
          `message length ${body.length} exceed maximum message size of ${maxBodyBytes}`,
        );
      }
      this.#send(streamId, body);
    } catch (thrown) {
      this.#answer(streamId, Failure.from(thrown));
    } finally {
      clearTimeout(timer);
      this.#running.delete(controller);
      this.#runningBytes -= bytes;
      this.#advance();
    }
  }

  #answer(streamId: number, failure: Failure): void {
    this.#send(streamId, Response.encode(Response.fromPartial({ status: statusOf(failure) })).finish());
  }

  #send(streamId: number, body: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(encodeFrame(streamId, frameTypes.response, 0, body));
  }

  /** Starts what may run. A peer that asks faster than it is served, or does not read its answers, waits in its own socket buffer. */
  #advance(): void {
    if (this.#socket.destroyed) return;
    while (this.#waiting.length > 0 && !this.#full()) {
      const { streamId, request, bytes } = this.#waiting.shift()!;
      void this.#run(streamId, request, bytes);
    }
    const held = this.#waiting.length > 0 || this.#full();
    if (held && !this.#socket.isPaused()) this.#socket.pause();
    else if (!held && this.#socket.isPaused()) this.#socket.resume();
  }

  #full(): boolean {
    const many = this.#running.size >= this.#maxRunning || this.#runningBytes >= this.#maxRunningBytes;
    return many || this.#socket.writableNeedDrain;
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
