/** Frames → a plugin's own method table. Looks up, decodes once, runs, encodes once; a handler's failure ends its call and nothing else. */
import type { IncomingCall } from '../bus/callee.ts';
import type { Deadlines } from '../bus/deadlines.ts';
import { priority } from '../bus/frames.ts';
import { OpenCalls } from '../bus/open-calls.ts';
import { decoded, StreamSink, UnarySink } from './call-sinks.ts';
import { Failure } from './failure.ts';
import { MethodStats } from './method-stats.ts';
import type { Log, MethodDefinition, ServiceDefinition } from './plugin.ts';
import { ServerCall } from './server-call.ts';

/** Calls of one plugin that may be open at once: Wait and Subscribe stay open, so this bound is on runaway callers, not on work. */
const maxRunning = 20_000;
/** Brief calls that may run at once, and bytes of their requests. Those beyond are refused at once: waiting in memory helps nobody. */
const maxBrief = 4096;
const maxBriefBytes = 64 * 1024 * 1024;
/** Batches that may wait for their turn before calls are refused unseen, so that a thread that is swamped comes up for air. */
const maxWaiting = 16_384;

interface Entry {
  readonly definition: MethodDefinition;
  readonly handler: (input: unknown, call: ServerCall) => unknown;
  readonly stats: MethodStats;
}

/** What the thread around a dispatcher knows and counts. */
export interface Load {
  /** Batches that have come and wait for their turn. */
  readonly waiting: number;
  /** The kernel wants no more calls taken: what is to say so is behind those that have come before. */
  readonly lettingGo: boolean;
  /** A call or a message is handed to the plugin's code. */
  take(): void;
}

const noLoad: Load = { waiting: 0, lettingGo: false, take: () => {} };

export class Dispatcher {
  readonly #entries = new Map<string, Entry>();
  readonly #running = new OpenCalls<ServerCall>();
  #calls = 0;
  readonly #deadlines: Deadlines;
  readonly #log: Log;
  #accepting = true;
  #brief = 0;
  #briefBytes = 0;
  readonly #quiet = new Set<() => void>();
  /** `migrate` methods, by path: their streams are moved when the generation lets go. */
  readonly #migrating: ReadonlySet<string>;
  readonly #load: Load;

  constructor(deadlines: Deadlines, log: Log, migrating: ReadonlySet<string>, load: Load = noLoad) {
    this.#deadlines = deadlines;
    this.#log = log;
    this.#migrating = migrating;
    this.#load = load;
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

  /** Calls with an end in sight: unary, with a deadline, and not of a method that a reload moves. */
  get brief(): number {
    return this.#brief;
  }

  /** Methods of the calls that run, each with how many. */
  get runningMethods(): string[] {
    const counts = new Map<string, number>();
    for (const { method } of this.#running.values()) counts.set(method, (counts.get(method) ?? 0) + 1);
    return [...counts].map(([method, count]) => `${count} × ${method}`);
  }

  /** Resolves true when no call runs; false after `ms`. */
  async quiesce(ms: number): Promise<boolean> {
    const quiet = () => this.#running.size === 0;
    if (quiet()) return true;
    return new Promise((resolve) => {
      const timer = ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(() => end(false), ms);
      const end = (outcome: boolean) => {
        clearTimeout(timer);
        this.#quiet.delete(check);
        resolve(outcome);
      };
      const check = () => {
        if (quiet()) end(true);
      };
      this.#quiet.add(check);
    });
  }

  /** Sends the streams of `migrate` methods to the next generation. */
  move(): void {
    for (const call of this.#running.values()) {
      if (!this.#migrating.has(call.method)) continue;
      this.#running.delete(call.id);
      call.incoming.moved();
      call.settle();
      call.abort(new Failure('Canceled', 'moved to the next generation'));
    }
    this.#checkQuiet();
  }

  abortAll(reason: Failure): void {
    for (const call of this.#running.values()) call.abort(reason);
  }

  serve(incoming: IncomingCall): void {
    if (!this.#accepting || this.#load.lettingGo) {
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
    const unary = !entry.definition.requestStream && !entry.definition.responseStream;
    const brief = unary && incoming.meta.deadline !== 0 && !this.#migrating.has(incoming.method);
    const bytes = brief ? (incoming.first?.byteLength ?? 0) : 0;
    const refusal = incoming.priority === priority.control ? undefined : this.#refusal(brief, bytes);
    if (refusal !== undefined) {
      incoming.fail(new Failure('ResourceExhausted', `${incoming.method}: ${refusal}, try again: resource exhausted`));
      return;
    }
    incoming.dispatch();
    this.#load.take();
    const call = new ServerCall(this.#calls++, incoming, this.#deadlines);
    this.#running.add(call);
    entry.stats.begin();
    const began = performance.now();
    if (brief) {
      this.#brief += 1;
      this.#briefBytes += bytes;
    }
    const settle = (failure: Failure | undefined) => {
      call.settle();
      entry.stats.end(performance.now() - began, failure !== undefined);
      this.#running.delete(call.id);
      if (brief) {
        this.#brief -= 1;
        this.#briefBytes -= bytes;
      }
      if (this.#quiet.size > 0) this.#checkQuiet();
    };
    const fail = (thrown: unknown) => {
      const failure = this.#failure(thrown, call);
      // A moved stream has been ended already, and its caller is elsewhere.
      if (this.#running.get(call.id) !== undefined) incoming.fail(failure);
      settle(failure);
    };

    if (unary && incoming.complete) {
      incoming.sink = new UnarySink(call);
      try {
        const result = entry.handler(decoded(entry.definition, call.method, incoming.first ?? new Uint8Array()), call);
        if (result instanceof Promise) {
          result.then((message) => {
            try {
              incoming.reply(encoded(entry.definition, call.method, message));
              settle(undefined);
            } catch (error) {
              fail(error);
            }
          }, fail);
        } else {
          incoming.reply(encoded(entry.definition, call.method, result));
          settle(undefined);
        }
      } catch (error) {
        fail(error);
      }
      return;
    }
    const stream = new StreamSink(incoming, call, entry.definition, this.#load);
    incoming.sink = stream;
    this.#stream(entry, incoming, call, stream).then(() => settle(undefined), fail);
  }

  #refusal(brief: boolean, bytes: number): string | undefined {
    if (this.#running.size >= maxRunning) return `${this.#running.size} calls are running`;
    if (this.#load.waiting >= maxWaiting) return `${this.#load.waiting} batches of calls wait`;
    if (!brief) return undefined;
    if (this.#brief >= maxBrief) return `${this.#brief} calls are running`;
    // One that is large on its own is no crowd.
    if (this.#brief > 0 && this.#briefBytes + bytes > maxBriefBytes)
      return `the requests of the calls that are running hold ${this.#briefBytes} bytes`;
    return undefined;
  }

  #checkQuiet(): void {
    for (const check of [...this.#quiet]) check();
  }

  async #stream(entry: Entry, incoming: IncomingCall, call: ServerCall, stream: StreamSink): Promise<void> {
    const { definition, handler } = entry;
    const input = definition.requestStream ? stream.requests : await stream.only();
    const result = handler(input, call);
    if (!definition.responseStream) {
      incoming.reply(encoded(definition, call.method, await result));
      return;
    }
    const iterator = (result as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    try {
      for (;;) {
        // A generator that waits for something that never comes may not see its signal: the call ends all the same.
        const next = await stream.orAbort(iterator.next());
        if (next.done) break;
        if (!incoming.send(encoded(definition, call.method, next.value))) await stream.drained();
        if (call.aborted !== undefined) throw call.aborted;
      }
    } catch (error) {
      // Not awaited: it settles only when the generator next yields.
      iterator.return?.()?.then(undefined, () => {});
      throw error;
    } finally {
      await stream.requests.return();
    }
    if (this.#running.get(call.id) !== undefined) incoming.end();
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

/** @throws Failure Internal: what the handler returned is not what its contract says */
function encoded(definition: MethodDefinition, method: string, message: unknown): Uint8Array {
  try {
    return definition.responseType.encode(message).finish();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new Failure('Internal', `${method}: what its handler returned cannot be encoded: ${text}`, { cause: error });
  }
}
