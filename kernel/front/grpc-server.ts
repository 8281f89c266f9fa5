/** gRPC on sockets that somebody else has accepted: requests → calls, connections within their limits, and an end for those that break them. */
import type { Duplex } from 'node:stream';
import { OpenCalls } from '../bus/open-calls.ts';
import type { Router } from '../bus/router.ts';
import { Failure } from '../sdk/failure.ts';
import type { Log } from '../sdk/plugin.ts';
import { type MemoryAccount, MemoryBudget } from './budget.ts';
import { GrpcCall } from './call.ts';
import type { FrontLimits } from './config.ts';
import { Http2Connection } from './http2/connection.ts';
import { errorCode } from './http2/frames.ts';
import { headerBlock } from './http2/header-block.ts';
import type { HeaderBlock } from './http2/hpack.ts';
import type { ServerStream } from './http2/stream.ts';
import type { MethodTable } from './methods.ts';
import { readRequest } from './request.ts';
import { failureBlock } from './status.ts';
import { unknownTally } from './tally.ts';

/** A client that connects has this long for its first call. */
const firstRequestMs = 30_000;
const stallCheckTicks = 5;
/** What clients have sent before they have read that they should leave is taken for so long. */
const leaveMs = 1000;

const httpBlocks = {
  '405': headerBlock([
    [':status', '405'],
    ['allow', 'POST'],
  ]),
  '415': headerBlock([[':status', '415']]),
} as const;

/** What the operator should know of who is at the other end, for the log. */
export interface Peer {
  readonly kind: 'unix' | 'tcp';
  describe(): Record<string, unknown>;
}

export class GrpcServer {
  readonly #router: Router;
  readonly #methods: MethodTable;
  readonly #limits: FrontLimits;
  readonly #log: Log;
  readonly #budget: MemoryBudget;
  #emptied = () => {};
  readonly #connections = new Set<Connection>();
  readonly #brief = { calls: 0 };
  readonly #counts = { unix: 0, tcp: 0 };
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;
  #refused = 0;

  constructor(router: Router, methods: MethodTable, limits: FrontLimits, log: Log) {
    this.#router = router;
    this.#methods = methods;
    this.#limits = limits;
    this.#log = log;
    this.#budget = new MemoryBudget(limits.memory, limits.connectionMemory);
  }

  get connections(): number {
    return this.#connections.size;
  }

  get streams(): number {
    let count = 0;
    for (const connection of this.#connections) count += connection.http2.streams;
    return count;
  }

  /** Bytes of messages in flight, for leak checks and metrics. */
  get memory(): number {
    return this.#budget.used;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.tick(performance.now()), 1000);
    this.#timer.unref();
  }

  accept(socket: Duplex, peer: Peer): void {
    const limit = peer.kind === 'unix' ? this.#limits.maxConnections : this.#limits.maxTcpConnections;
    if (this.#counts[peer.kind] >= limit) {
      socket.on('error', () => {});
      socket.destroy();
      if (this.#refused === 0)
        this.#log.warn('connection refused', { reason: `${limit} are open`, ...peer.describe() });
      this.#refused += 1;
      return;
    }
    this.#counts[peer.kind] += 1;
    const connection = new Connection(socket, peer, this.#limits, {
      account: this.#budget.account(),
      request: (stream, block) => this.#request(connection, stream, block),
      closed: (reason) => {
        this.#connections.delete(connection);
        if (this.#connections.size === 0) this.#emptied();
        this.#counts[peer.kind] -= 1;
        if (reason !== undefined) this.#log.warn('connection closed', { reason, ...peer.describe() });
      },
    });
    this.#connections.add(connection);
  }

  /** Every second. Public for tests with a clock of their own: `now` is one of performance.now(). */
  tick(now: number): void {
    this.#ticks += 1;
    this.#refused = 0;
    for (const connection of this.#connections) {
      const { http2, peer, openedAt, receiving } = connection;
      http2.tick(peer.kind === 'tcp');
      if (!http2.ready && now - openedAt >= this.#limits.handshakeMs) http2.destroy('no HTTP/2 preface in time');
      else if (http2.requests === 0 && now - openedAt >= firstRequestMs) http2.drain();
      else if (this.#ticks % stallCheckTicks === 0) for (const call of receiving.values()) call.checkStall(now);
    }
  }

  /**
   * Another server takes what comes from now on: connections are asked to leave, and what runs on them goes on, however long it takes. Resolves when the last has gone.
   */
  async drained(): Promise<void> {
    for (const { http2 } of this.#connections) http2.leave(leaveMs);
    if (this.#connections.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#emptied = resolve;
    });
  }

  /** No new calls. Brief ones that run have `graceMs` to end; streams, and calls that wait for something, end with their connections. */
  async stop(graceMs: number): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const { http2 } of this.#connections) http2.drain();
    const until = performance.now() + graceMs;
    while (this.#brief.calls > 0 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 5));
    for (const { http2 } of this.#connections) http2.end(errorCode.none, undefined);
  }

  #request(connection: Connection, stream: ServerStream, block: HeaderBlock): void {
    const read = readRequest(block, Date.now());
    switch (read.t) {
      case 'malformed':
        stream.reset(errorCode.protocol);
        return;
      case 'http':
        stream.respond(httpBlocks[read.status], true);
        return;
      case 'failed':
        this.#refuse(stream, read.failure);
        return;
      case 'request':
        try {
          const method = this.#methods.find(read.request.path);
          const call = new GrpcCall(stream, method, read.request, {
            router: this.#router,
            account: connection.account,
            receiving: connection.receiving,
            brief: this.#brief,
            maxRecvMessageSize: this.#limits.maxRecvMessageSize,
            maxSendMessageSize: this.#limits.maxSendMessageSize,
          });
          stream.handler = call;
          call.begin();
        } catch (error) {
          this.#refuse(stream, Failure.from(error));
        }
    }
  }

  #refuse(stream: ServerStream, failure: Failure): void {
    unknownTally.started += 1;
    unknownTally.end(failure, 0);
    stream.respond(failureBlock(failure, true), true);
  }
}

class Connection {
  readonly http2: Http2Connection;
  readonly peer: Peer;
  readonly account: MemoryAccount;
  readonly openedAt = performance.now();
  readonly receiving = new OpenCalls<GrpcCall>(1);

  constructor(
    socket: Duplex,
    peer: Peer,
    limits: FrontLimits,
    handler: {
      account: MemoryAccount;
      request(stream: ServerStream, block: HeaderBlock): void;
      closed(reason: string | undefined): void;
    },
  ) {
    this.peer = peer;
    this.account = handler.account;
    this.http2 = new Http2Connection(
      socket,
      { maxStreams: limits.maxStreams, maxHeaderSize: limits.maxHeaderSize },
      handler,
    );
  }
}
