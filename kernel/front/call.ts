/**
 * One gRPC call: a stream of HTTP/2 on one side, a call on the bus on the other. Payloads pass as bytes. Reading follows the bus' credit (a plugin that is
 * behind stops the client through HTTP/2's window), and a plugin gets its credit back when the client's socket has taken what it sent.
 */
import type { OpenCalls } from '../bus/open-calls.ts';
import type { RoutedCall, RouteSink } from '../bus/routed-call.ts';
import type { Router } from '../bus/router.ts';
import { Failure } from '../sdk/failure.ts';
import type { MemoryAccount } from './budget.ts';
import { errorCode } from './http2/frames.ts';
import type { ServerStream, StreamHandler } from './http2/stream.ts';
import { MessageReader, prefixBytes } from './message-reader.ts';
import type { Method } from './methods.ts';
import type { GrpcRequest } from './request.ts';
import { failureBlock, okTrailers, responseBlock } from './status.ts';

export interface CallWorld {
  readonly router: Router;
  readonly account: MemoryAccount;
  readonly maxRecvMessageSize: number;
  readonly maxSendMessageSize: number;
  /** Calls whose request has not ended: they are looked at for clients that stall. */
  readonly receiving: OpenCalls<GrpcCall>;
  /** How many calls there are that a server that stops waits for. */
  readonly brief: { calls: number };
}

/** A request must make this much progress in {@link stallMs}, unless we are the ones who do not read. */
const stallBytes = 30 * 1024;
export const stallMs = 30_000;
const firstMessageMs = 100;
/** Payloads up to this size are copied behind their prefix, so that both are one piece. */
const joinLimit = 1024;

export class GrpcCall implements StreamHandler, RouteSink {
  /** Its stream's. */
  readonly id: number;
  readonly #stream: ServerStream;
  readonly #method: Method;
  readonly #request: GrpcRequest;
  readonly #world: CallWorld;
  readonly #reader: MessageReader;
  readonly #began = performance.now();
  #routed: RoutedCall | undefined;
  /** The whole request of a call with one message, until the call is over. */
  #kept: Uint8Array | undefined;
  #charged = 0;
  #outgoing = 0;
  #blocked = false;
  #complete = false;
  /** Gives the answer of a call that has failed before its first message. */
  #held: (() => void) | undefined;
  #responded = false;
  #over = false;
  /** Where the reading was when the stall clock was set. */
  #markAt = this.#began;
  #markBytes = 0;
  #markCount = 0;

  constructor(stream: ServerStream, method: Method, request: GrpcRequest, world: CallWorld) {
    this.id = stream.id;
    this.#stream = stream;
    this.#method = method;
    this.#request = request;
    this.#world = world;
    this.#reader = new MessageReader(world.maxRecvMessageSize);
    method.tally.started += 1;
    if (method.brief) world.brief.calls += 1;
  }

  begin(): void {
    if (this.#method.requestStream) this.#route(undefined);
    if (this.#over) return;
    if (this.#stream.remoteEnded) this.data(Buffer.alloc(0), true);
    else this.#world.receiving.add(this);
  }

  data(bytes: Buffer, last: boolean): void {
    if (last) {
      this.#complete = true;
      this.#world.receiving.delete(this.id);
    }
    if (this.#over) {
      this.#held?.();
      return;
    }
    const { contentLength } = this.#request;
    if (
      contentLength !== -1 &&
      (this.#stream.received > contentLength || (last && this.#stream.received < contentLength))
    ) {
      this.#cut(new Failure('Internal', 'content-length is not the length of the content'), errorCode.protocol);
      return;
    }
    try {
      this.#reader.push(bytes);
    } catch (error) {
      this.#quit(Failure.from(error));
      return;
    }
    // What is not sent on at once is held, and counts.
    if (this.#method.requestStream) this.#forward();
    else if (this.#complete) this.#only();
    if (!this.#over) this.#charge();
  }

  #charge(): void {
    const held = this.#reader.held + (this.#kept?.length ?? 0);
    const { account } = this.#world;
    if (held < this.#charged) account.give(this.#charged - held);
    else if (held > this.#charged && !account.take(held - this.#charged)) {
      this.#quit(exhausted());
      return;
    }
    this.#charged = held;
  }

  #forward(): void {
    while (!this.#blocked) {
      const message = this.#reader.next();
      if (message === undefined) break;
      this.#method.tally.received += 1;
      if (this.#routed?.send(message) === false) {
        this.#blocked = true;
        this.#stream.pause();
      }
    }
    if (!this.#complete || this.#over || this.#reader.waiting) return;
    if (this.#reader.partial) this.#quit(new Failure('Internal', 'the request ends inside a message'));
    else this.#routed?.finish();
  }

  #only(): void {
    const { count, partial } = this.#reader;
    if (partial || count !== 1) {
      const got = partial ? 'a part of one' : String(count);
      this.#quit(new Failure('Internal', `${this.#method.path} takes one message, got ${got}`));
      return;
    }
    this.#method.tally.received += 1;
    this.#kept = this.#reader.next();
    this.#route(this.#kept);
  }

  #route(payload: Uint8Array | undefined): void {
    const { namespace, lease, trace, deadline } = this.#request;
    const { path, provider, responseStream } = this.#method;
    try {
      if (provider === undefined)
        throw new Failure('Unimplemented', `nothing serves ${path} any more: not implemented`);
      const routed = this.#world.router.call(
        provider,
        path,
        {
          meta: { from: 'front', namespace, lease, deadline, trace, cursor: '' },
          payload,
          complete: payload !== undefined,
          single: !responseStream,
        },
        this,
      );
      if (!this.#over) this.#routed = routed;
    } catch (error) {
      this.fail(Failure.from(error));
    }
  }

  /** From the bus: it takes messages again. */
  writable(): void {
    if (!this.#blocked || this.#over) return;
    this.#blocked = false;
    this.#forward();
    if (this.#over) return;
    this.#charge();
    if (this.#blocked || this.#over) return;
    // The time in which we did not read is not the client's.
    this.#mark(performance.now());
    this.#stream.resume();
  }

  /** From the bus. */
  message(payload: Uint8Array): void {
    if (this.#over) return;
    const { length } = payload;
    const { account, maxSendMessageSize } = this.#world;
    if (length > maxSendMessageSize) {
      this.#quit(
        new Failure(
          'ResourceExhausted',
          `answer of ${length} bytes is larger than ${maxSendMessageSize}: resource exhausted`,
        ),
      );
      return;
    }
    if (!account.take(length)) {
      // A status would wait behind what the client has not read.
      if (this.#responded) this.#cut(exhausted(), errorCode.enhanceYourCalm);
      else this.#quit(exhausted());
      return;
    }
    this.#outgoing += length;
    this.#method.tally.sent += 1;
    this.#respond();
    const taken = () => this.#taken(length);
    const joined = length <= joinLimit;
    const head = Buffer.allocUnsafe(prefixBytes + (joined ? length : 0));
    head[0] = 0;
    head.writeUInt32BE(length, 1);
    if (joined) {
      head.set(payload, prefixBytes);
      this.#stream.send(head, taken);
    } else {
      this.#stream.send(head);
      this.#stream.send(payload, taken);
    }
  }

  #taken(bytes: number): void {
    if (this.#outgoing < bytes) return;
    this.#outgoing -= bytes;
    this.#world.account.give(bytes);
    if (!this.#over && this.#method.responseStream) this.#routed?.consumed(bytes);
  }

  #respond(): void {
    if (this.#responded) return;
    this.#responded = true;
    this.#stream.respond(responseBlock);
  }

  /** From the bus: the answer is complete. */
  end(): void {
    if (this.#over) return;
    this.#respond();
    this.#settle(undefined);
    this.#stream.finish(okTrailers);
  }

  /** From the bus, and from here: the call has failed. */
  fail(failure: Failure): void {
    if (this.#over) return;
    this.#settle(failure);
    if (this.#responded) {
      this.#stream.finish(failureBlock(failure, false));
      return;
    }
    const answer = () => {
      this.#held = undefined;
      this.#stream.respond(failureBlock(failure, true), true);
    };
    if (this.#complete || !this.#method.requestStream || this.#reader.count > 0) answer();
    else this.#hold(answer);
  }

  /** A client whose first message meets an ended stream gets `EOF` for it, and containerd's look no further: they are let have it sent, if it is on its way. */
  #hold(answer: () => void): void {
    const timer = setTimeout(answer, firstMessageMs);
    this.#held = () => {
      clearTimeout(timer);
      answer();
    };
  }

  #quit(failure: Failure): void {
    this.#routed?.cancel();
    this.fail(failure);
  }

  /** Ends it without an answer. */
  #cut(failure: Failure, code: number): void {
    if (this.#over) return;
    this.#routed?.cancel();
    this.#settle(failure);
    this.#dropOutgoing();
    this.#stream.reset(code);
  }

  aborted(): void {
    this.#dropOutgoing();
    if (this.#over) return;
    this.#routed?.cancel();
    this.#settle(new Failure('Canceled', 'context canceled'));
  }

  #dropOutgoing(): void {
    this.#world.account.give(this.#outgoing);
    this.#outgoing = 0;
  }

  #settle(failure: Failure | undefined): void {
    this.#over = true;
    this.#world.receiving.delete(this.id);
    if (this.#method.brief) this.#world.brief.calls -= 1;
    this.#world.account.give(this.#charged);
    this.#charged = 0;
    this.#kept = undefined;
    this.#routed = undefined;
    this.#method.tally.end(failure, (performance.now() - this.#began) / 1000);
  }

  #mark(now: number): void {
    this.#markAt = now;
    this.#markBytes = this.#stream.received;
    this.#markCount = this.#reader.count;
  }

  /** Called every few seconds while the request is open. @param now of performance.now() */
  checkStall(now: number): void {
    const { count, partial } = this.#reader;
    const idleStream = this.#method.requestStream && !partial;
    // A stream between two messages may stay so; one that we do not read is not the client's fault.
    if (idleStream || this.#blocked || (this.#method.requestStream && count !== this.#markCount)) {
      this.#mark(now);
      return;
    }
    if (now - this.#markAt < stallMs) return;
    if (this.#stream.received - this.#markBytes >= stallBytes) this.#mark(now);
    else
      this.#quit(
        new Failure('DeadlineExceeded', `${this.#method.path}: the request did not arrive: deadline exceeded`),
      );
  }
}

function exhausted(): Failure {
  return new Failure(
    'ResourceExhausted',
    'too many bytes are in flight for this client, or for all: resource exhausted',
  );
}
