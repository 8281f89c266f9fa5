/** What a call hears of its caller while its handler runs: messages, credit, and that nobody waits any more. */
import type { IncomingCall, IncomingSink } from '../bus/callee.ts';
import { Failure } from './failure.ts';
import { Inbox } from './inbox.ts';
import type { MethodDefinition } from './plugin.ts';
import type { ServerCall } from './server-call.ts';

const canceled = () => new Failure('Canceled', 'context canceled');

/** @throws Failure Internal, as gRPC's servers answer what is no message of the type: the peer was made from another contract, or is broken */
export function decoded({ requestType }: MethodDefinition, method: string, payload: Uint8Array): unknown {
  try {
    return requestType.decode(payload);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new Failure('Internal', `${method}: its request cannot be decoded: ${text}: internal`, { cause: error });
  }
}

export class UnarySink implements IncomingSink {
  readonly #call: ServerCall;
  constructor(call: ServerCall) {
    this.#call = call;
  }
  message(): void {}
  end(): void {}
  writable(): void {}
  cancelled(): void {
    this.#call.abort(canceled());
  }
}

export class StreamSink implements IncomingSink {
  readonly requests: Inbox<unknown>;
  readonly #call: ServerCall;
  readonly #incoming: IncomingCall;
  readonly #definition: MethodDefinition;
  #resume: (() => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  readonly #load: { take(): void };

  constructor(incoming: IncomingCall, call: ServerCall, definition: MethodDefinition, load: { take(): void }) {
    this.#load = load;
    this.#incoming = incoming;
    this.#call = call;
    this.#definition = definition;
    this.requests = new Inbox(
      (bytes) => incoming.consumed(bytes),
      () => {},
    );
    if (incoming.first !== undefined) this.message(incoming.first);
    if (incoming.complete) this.requests.finish();
    // Deadline and stop end a handler that waits for its peer.
    call.onAbort((reason) => {
      this.requests.finish(reason);
      this.#resume?.();
      this.#reject?.(reason);
    });
  }

  async only(): Promise<unknown> {
    const { value, done } = await this.requests.next();
    if (done)
      throw new Failure('InvalidArgument', `${this.#call.method} takes one message, got none: invalid argument`);
    return value;
  }

  /** Resolves when the caller has taken enough of what was sent. */
  async drained(): Promise<void> {
    if (this.#incoming.window > 0 || this.#call.aborted !== undefined) return;
    await new Promise<void>((resolve) => {
      this.#resume = resolve;
    });
    this.#resume = undefined;
  }

  orAbort<T>(promise: Promise<T>): Promise<T> {
    if (this.#call.aborted !== undefined) return Promise.reject(this.#call.aborted);
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
    });
  }

  writable(): void {
    this.#resume?.();
  }

  message(payload: Uint8Array): void {
    this.#load.take();
    try {
      this.requests.push(decoded(this.#definition, this.#call.method, payload), payload.byteLength);
    } catch (error) {
      this.requests.finish(Failure.from(error));
    }
  }

  end(): void {
    this.requests.finish();
  }

  cancelled(): void {
    this.#call.abort(canceled());
  }
}
