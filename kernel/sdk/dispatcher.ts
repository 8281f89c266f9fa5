/** Frames → a plugin's own method table. Looks up, decodes once, runs, encodes once; a handler's failure ends its call and nothing else. */
import type { IncomingCall, IncomingSink } from '../bus/callee.ts';
import type { Deadlines } from '../bus/deadlines.ts';
import { Failure } from './failure.ts';
import { Inbox } from './inbox.ts';
import { MethodStats } from './method-stats.ts';
import type { Log, MethodDefinition, ServiceDefinition } from './plugin.ts';
import { ServerCall } from './server-call.ts';

/** Calls of one plugin that may run at once. Wait and Subscribe stay open, so the bound is on runaway callers, not on work. */
const maxRunning = 20_000;

interface Entry {
  readonly definition: MethodDefinition;
  readonly handler: (input: unknown, call: ServerCall) => unknown;
  readonly stats: MethodStats;
}

export class Dispatcher {
  readonly #entries = new Map<string, Entry>();
  readonly #running = new Map<ServerCall, IncomingCall>();
  readonly #deadlines: Deadlines;
  readonly #log: Log;
  #accepting = true;
  #unary = 0;
  #quiet: (() => void) | undefined;
  /** `migrate` methods, by path: their streams are moved when the generation lets go. */
  readonly #migrating: ReadonlySet<string>;

  constructor(deadlines: Deadlines, log: Log, migrating: ReadonlySet<string>) {
    this.#deadlines = deadlines;
    this.#log = log;
    this.#migrating = migrating;
  }

  add(definition: ServiceDefinition, implementation: object): void {
    for (const [key, method] of Object.entries(definition.methods)) {
      const handler: unknown = Reflect.get(implementation, key);
      if (typeof handler !== 'function') {
        throw new Failure('Internal', `service ${definition.fullName} does not implement ${key}`);
      }
      this.#entries.set(`${definition.fullName}/${method.name}`, {
        definition: method,
        handler: handler.bind(implementation),
        stats: new MethodStats(),
      });
    }
  }

  /** Paths with what of them streams, for the front. */
  methods(): { path: string; requestStream: boolean; responseStream: boolean }[] {
    return [...this.#entries].map(([path, { definition }]) => ({
      path,
      requestStream: definition.requestStream,
      responseStream: definition.responseStream,
    }));
  }

  stats(): { method: string; calls: number; failures: number; inFlight: number; p50: number; p99: number }[] {
    return [...this.#entries]
      .filter(([, { stats }]) => stats.calls > 0)
      .map(([method, { stats }]) => ({
        method,
        calls: stats.calls,
        failures: stats.failures,
        inFlight: stats.inFlight,
        p50: stats.quantile(0.5),
        p99: stats.quantile(0.99),
      }));
  }

  get running(): number {
    return this.#running.size;
  }

  /** Stop taking calls: what comes is refused, and its caller asks the next generation. */
  hold(): void {
    this.#accepting = false;
  }

  resume(): void {
    this.#accepting = true;
  }

  /** Resolves when no unary call runs, or after `ms`; those beyond finish on this generation. */
  async quiesce(ms: number): Promise<void> {
    if (this.#unary === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#quiet = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#quiet = undefined;
  }

  /** Sends the streams of `migrate` methods to the next generation. */
  move(): void {
    for (const [call, incoming] of this.#running) {
      if (!this.#migrating.has(call.method)) continue;
      this.#running.delete(call);
      incoming.moved();
      call.settle();
      call.abort(new Failure('Canceled', 'moved to the next generation'));
    }
  }

  abortAll(reason: Failure): void {
    for (const [call] of this.#running) call.abort(reason);
  }

  serve(incoming: IncomingCall): void {
    if (!this.#accepting) {
      incoming.refuse();
      return;
    }
    const entry = this.#entries.get(incoming.method);
    if (entry === undefined) {
      incoming.fail(new Failure('Unimplemented', `unknown method ${incoming.method}: not implemented`));
      return;
    }
    // Nobody waits for it any more: dropped unread.
    if (incoming.meta.deadline !== 0 && incoming.meta.deadline < Date.now()) {
      incoming.fail(new Failure('DeadlineExceeded', `${incoming.method}: context deadline exceeded`));
      return;
    }
    if (this.#running.size >= maxRunning) {
      incoming.fail(new Failure('ResourceExhausted', `${this.#running.size} calls are running: resource exhausted`));
      return;
    }
    incoming.dispatch();
    const call = new ServerCall(incoming, this.#deadlines);
    this.#running.set(call, incoming);
    entry.stats.begin();
    const began = performance.now();
    const settle = (failure: Failure | undefined) => {
      call.settle();
      entry.stats.end(performance.now() - began, failure !== undefined);
      this.#running.delete(call);
      if (unary) {
        this.#unary -= 1;
        if (this.#unary === 0) this.#quiet?.();
      }
    };
    const unary = !entry.definition.requestStream && !entry.definition.responseStream;
    if (unary) this.#unary += 1;
    const fail = (thrown: unknown) => {
      const failure = this.#failure(thrown, call);
      // A moved stream has been ended already, and its caller is elsewhere.
      if (this.#running.has(call)) incoming.fail(failure);
      settle(failure);
    };

    if (unary && incoming.complete) {
      incoming.sink = new UnarySink(call);
      try {
        const result = entry.handler(entry.definition.requestType.decode(incoming.first ?? new Uint8Array()), call);
        if (result instanceof Promise) {
          result.then((message) => {
            try {
              incoming.reply(entry.definition.responseType.encode(message).finish());
              settle(undefined);
            } catch (error) {
              fail(error);
            }
          }, fail);
        } else {
          incoming.reply(entry.definition.responseType.encode(result).finish());
          settle(undefined);
        }
      } catch (error) {
        fail(error);
      }
      return;
    }
    const stream = new StreamSink(incoming, call, entry.definition);
    incoming.sink = stream;
    this.#stream(entry, incoming, call, stream).then(() => settle(undefined), fail);
  }

  async #stream(entry: Entry, incoming: IncomingCall, call: ServerCall, stream: StreamSink): Promise<void> {
    const { definition, handler } = entry;
    const input = definition.requestStream ? stream.requests : await stream.only();
    const result = handler(input, call);
    if (!definition.responseStream) {
      incoming.reply(definition.responseType.encode(await result).finish());
      return;
    }
    const iterator = (result as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    try {
      for (;;) {
        // A generator that waits for something that never comes may not see its signal: the call ends all the same.
        const next = await stream.orAbort(iterator.next());
        if (next.done) break;
        if (!incoming.send(definition.responseType.encode(next.value).finish())) await stream.drained();
        if (call.aborted !== undefined) throw call.aborted;
      }
    } catch (error) {
      // Not awaited: it settles only when the generator next yields.
      iterator.return?.()?.then(undefined, () => {});
      throw error;
    } finally {
      await stream.requests.return();
    }
    if (this.#running.has(call)) incoming.end();
  }

  #failure(thrown: unknown, call: ServerCall): Failure {
    // What a handler throws because its call was aborted is the abort, not the handler's error.
    if (call.aborted !== undefined && !(thrown instanceof Failure)) return call.aborted;
    const failure = Failure.from(thrown);
    if (!(thrown instanceof Failure) && thrown instanceof Error && failure.code === 'Unknown') {
      this.#log.warn('call failed', {
        method: call.method,
        namespace: call.namespace,
        error: thrown.stack ?? thrown.message,
      });
    }
    return failure;
  }
}

const canceled = () => new Failure('Canceled', 'context canceled');

class UnarySink implements IncomingSink {
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

class StreamSink implements IncomingSink {
  readonly requests: Inbox<unknown>;
  readonly #call: ServerCall;
  readonly #incoming: IncomingCall;
  readonly #definition: MethodDefinition;
  #resume: (() => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;

  constructor(incoming: IncomingCall, call: ServerCall, definition: MethodDefinition) {
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
    try {
      this.requests.push(this.#definition.requestType.decode(payload), payload.byteLength);
    } catch (error) {
      this.requests.finish(
        new Failure('InvalidArgument', `message cannot be decoded: ${String(error)}: invalid argument`),
      );
    }
  }

  end(): void {
    this.requests.finish();
  }

  cancelled(): void {
    this.#call.abort(canceled());
  }
}
