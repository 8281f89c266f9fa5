/**
 * The client end of a ttrpc connection: many unary calls at once over one stream socket.
 *
 * The peer is a shim, a program that the daemon did not write and may not trust to be alive: every call has a deadline or says that it has none,
 * everything that is held is bounded, and whatever the peer sends is answered by dropping the frame or the connection, never by a throw.
 */

import type { Duplex } from 'node:stream';
import { Request, Response } from 'troupe/proto/ttrpc/ttrpc.ts';
import { Failure } from '../sdk/failure.ts';
import { encodeFrame, type Frame, FrameDecoder, frameTypes, maxBodyBytes } from './frame.ts';
import { failureOf } from './status.ts';

/** Stream ids are 32 bits and odd; a connection that has used them all (2³¹ calls) is closed rather than wrapped, since the peer refuses reuse. */
const lastStreamId = 0xffff_ffff;

/** setTimeout's range, 24.8 days; a longer deadline is sent to the peer as it is and kept here as this one. */
const longestTimer = 0x7fff_ffff;

/** How many calls that ended here first are remembered, so that their late answers are not reported as strange. */
const rememberedAbandoned = 1024;

export interface TtrpcClientOptions {
  /** Calls that may wait for an answer at once, default 4096; more are refused with ResourceExhausted. */
  readonly maxPending?: number;
  /** Bytes that may wait to be sent to a peer that does not read, default 8 MiB; more are refused with ResourceExhausted. */
  readonly maxUnsentBytes?: number;
  /** Called once per kind of protocol fault of the peer (an answer to no call, a frame of unknown type). */
  readonly onFault?: (fault: string) => void;
}

export interface TtrpcCallOptions {
  /** Milliseconds until the call is rejected here with DeadlineExceeded; the peer is told too. 'none' is for calls that end by an event (Wait). */
  readonly timeout: number | 'none';
  readonly signal?: AbortSignal;
  readonly metadata?: Readonly<Record<string, string>>;
}

interface PendingCall {
  readonly method: string;
  settle(outcome: Uint8Array | Failure): void;
}

export class TtrpcClient {
  /** Resolves, never rejects, when the connection is gone, with the reason that every pending call was rejected with. */
  readonly closed: Promise<Failure>;

  readonly #socket: Duplex;
  readonly #pending = new Map<number, PendingCall>();
  readonly #abandoned = new Set<number>();
  readonly #reported = new Set<string>();
  readonly #maxPending: number;
  readonly #maxUnsentBytes: number;
  readonly #onFault: (fault: string) => void;
  readonly #resolveClosed: (reason: Failure) => void;
  #nextId = 1;
  #end: Failure | undefined;

  /** @param socket connected (or connecting) to the peer; the client owns it from here. */
  constructor(socket: Duplex, options: TtrpcClientOptions = {}) {
    const { promise, resolve } = Promise.withResolvers<Failure>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#socket = socket;
    this.#maxPending = options.maxPending ?? 4096;
    this.#maxUnsentBytes = options.maxUnsentBytes ?? 8 << 20;
    this.#onFault = options.onFault ?? (() => {});
    const decoder = new FrameDecoder();
    socket.on('data', (chunk: Uint8Array) => {
      for (const frame of decoder.push(chunk)) this.#receive(frame);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // Whether a dead peer's end reads as closed or as reset is a matter of what it had not read yet.
      const gone = error.code === 'ECONNRESET' || error.code === 'EPIPE';
      this.close(gone ? 'ttrpc: closed' : `ttrpc: ${error.message}`);
    });
    socket.on('end', () => this.close(decoder.midFrame ? 'ttrpc: closed in mid-frame' : 'ttrpc: closed'));
    socket.on('close', () => this.close('ttrpc: closed'));
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** Why the connection is gone, or undefined while it stands. */
  get end(): Failure | undefined {
    return this.#end;
  }

  /**
   * One unary call. Rejects with the peer's status as a Failure, with DeadlineExceeded, Canceled (signal), ResourceExhausted
   * (a message over 4 MiB either way, too many calls) or Unavailable (the connection is or went away).
   */
  async call(service: string, method: string, payload: Uint8Array, options: TtrpcCallOptions): Promise<Uint8Array> {
    const name = `${service}/${method}`;
    if (this.#end !== undefined) throw this.#end;
    options.signal?.throwIfAborted();
    if (this.#pending.size >= this.#maxPending) {
      throw new Failure('ResourceExhausted', `ttrpc: ${name}: ${this.#pending.size} calls are waiting already`);
    }
    if (this.#socket.writableLength > this.#maxUnsentBytes) {
      throw new Failure(
        'ResourceExhausted',
        `ttrpc: ${name}: the peer has not read ${this.#socket.writableLength} bytes`,
      );
    }
    const timeout = options.timeout;
    if (timeout !== 'none' && timeout <= 0) throw new Failure('DeadlineExceeded', `${name}: context deadline exceeded`);
    const body = Request.encode(
      Request.fromPartial({
        service,
        method,
        payload,
        timeoutNano: timeout === 'none' ? 0n : BigInt(Math.ceil(timeout * 1e6)),
        metadata: Object.entries(options.metadata ?? {}).map(([key, value]) => ({ key, value })),
      }),
    ).finish();
    if (body.length > maxBodyBytes) {
      throw new Failure(
        'ResourceExhausted',
        `message length ${body.length} exceed maximum message size of ${maxBodyBytes}`,
      );
    }
    const id = this.#nextId;
    this.#nextId += 2;
    const answer = this.#await(id, name, options);
    this.#socket.write(encodeFrame(id, frameTypes.request, 0, body));
    if (this.#nextId > lastStreamId) this.close('ttrpc: stream ids are used up');
    return answer;
  }

  /** Ends the connection; every pending call is rejected with Unavailable. */
  close(reason = 'ttrpc: closed'): void {
    if (this.#end !== undefined) return;
    this.#end = new Failure('Unavailable', `${reason}: unavailable`);
    this.#socket.destroy();
    for (const call of [...this.#pending.values()]) call.settle(this.#end);
    this.#abandoned.clear();
    this.#resolveClosed(this.#end);
  }

  #await(id: number, name: string, options: TtrpcCallOptions): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    let timer: NodeJS.Timeout | undefined;
    const settle = (outcome: Uint8Array | Failure): void => {
      this.#pending.delete(id);
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      if (outcome instanceof Failure) reject(outcome);
      else resolve(outcome);
    };
    const abandon = (failure: Failure): void => {
      this.#abandoned.add(id);
      for (const oldest of this.#abandoned) {
        if (this.#abandoned.size <= rememberedAbandoned) break;
        this.#abandoned.delete(oldest);
      }
      settle(failure);
    };
    const onAbort = (): void => abandon(Failure.from(options.signal?.reason));
    if (options.timeout !== 'none') {
      const expire = (): void => {
        if (this.#pending.has(id)) abandon(new Failure('DeadlineExceeded', `${name}: context deadline exceeded`));
      };
      // After a stall a loop runs its timers before it reads its sockets: an answer that has arrived meanwhile comes first.
      timer = setTimeout(() => setImmediate(expire), Math.min(options.timeout, longestTimer));
    }
    options.signal?.addEventListener('abort', onAbort, { once: true });
    this.#pending.set(id, { method: name, settle });
    return promise;
  }

  #receive(frame: Frame): void {
    const call = frame.type === frameTypes.response ? this.#pending.get(frame.streamId) : undefined;
    if (call !== undefined) {
      call.settle(outcomeOf(call.method, frame));
    } else if (frame.type !== frameTypes.response) {
      this.#fault(`frame of type ${frame.type}`);
    } else if (!this.#abandoned.delete(frame.streamId)) {
      this.#fault('response to no pending call');
    }
  }

  #fault(fault: string): void {
    if (this.#reported.has(fault) || this.#reported.size >= 16) return;
    this.#reported.add(fault);
    this.#onFault(`ttrpc: peer sent a ${fault}; dropped`);
  }
}

function outcomeOf(method: string, frame: Frame): Uint8Array | Failure {
  if (frame.body === undefined) {
    const message = `${method}: message length ${frame.bodyBytes} exceed maximum message size of ${maxBodyBytes}`;
    return new Failure('ResourceExhausted', message);
  }
  try {
    const { status, payload } = Response.decode(frame.body);
    return status !== undefined && status.code !== 0 ? failureOf(status) : payload;
  } catch (cause) {
    return new Failure('Internal', `${method}: the answer is not a ttrpc response`, { cause });
  }
}
