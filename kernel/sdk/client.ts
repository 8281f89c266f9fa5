/** A typed client of a contract over the bus: encode once, decode once, and nothing outlives its caller. */
import type { CallMeta } from '../bus/frames.ts';
import type { RoutedCall, RouteSink } from '../bus/routed-call.ts';
import type { Router } from '../bus/router.ts';
import { Failure } from './failure.ts';
import { Inbox } from './inbox.ts';
import type { CallOptions, Client, MethodDefinition, ServiceDefinition } from './plugin.ts';
import { ServerCall } from './server-call.ts';

export function clientOf<D extends ServiceDefinition>(
  router: Router,
  self: string,
  definition: D,
  name = '',
): Client<D> {
  const client: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const path = `${definition.fullName}/${method.name}`;
    if (!method.requestStream && !method.responseStream) {
      client[key] = (input: unknown, options: CallOptions = {}) =>
        unary(router, self, definition.fullName, name, path, method, input, options);
      continue;
    }
    client[key] = (input: unknown, options: CallOptions = {}) => {
      const call = new ClientCall(router, self, definition.fullName, name, path, method, options);
      if (method.requestStream) call.stream(input as AsyncIterable<unknown>);
      else call.request(input);
      return method.responseStream ? call.replies() : call.reply();
    };
  }
  return client as Client<D>;
}

/** The common case on its own: one message each way needs neither queue nor pump, and one object instead of a handful of closures. */
function unary(
  router: Router,
  self: string,
  contract: string,
  name: string,
  path: string,
  method: MethodDefinition,
  input: unknown,
  options: CallOptions,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = new UnaryCall(path, method, resolve, reject);
    const payload = method.requestType.encode(input).finish();
    const request = { meta: metaOf(self, options), payload, complete: true, single: true };
    const routed = router.call(router.provider(contract, name), path, request, call);
    call.unlisten = onAbort(options, (failure) => {
      routed.cancel();
      reject(failure);
    });
  });
}

class UnaryCall implements RouteSink {
  readonly #path: string;
  readonly #method: MethodDefinition;
  readonly #resolve: (reply: unknown) => void;
  readonly #reject: (error: unknown) => void;
  #reply: Uint8Array | undefined;
  unlisten: (() => void) | undefined;

  constructor(
    path: string,
    method: MethodDefinition,
    resolve: (reply: unknown) => void,
    reject: (error: unknown) => void,
  ) {
    this.#path = path;
    this.#method = method;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  message(payload: Uint8Array): void {
    this.#reply = payload;
  }

  end(): void {
    this.unlisten?.();
    try {
      if (this.#reply === undefined) throw new Failure('Internal', `${this.#path} ended without a reply: internal`);
      this.#resolve(this.#method.responseType.decode(this.#reply));
    } catch (error) {
      this.#reject(Failure.from(error));
    }
  }

  fail(failure: Failure): void {
    this.unlisten?.();
    this.#reject(failure);
  }

  writable(): void {}
}

function metaOf(self: string, options: CallOptions): CallMeta {
  const own = options.timeoutMs === undefined ? 0 : Date.now() + options.timeoutMs;
  const inherited = options.deadline ?? 0;
  const deadline = own === 0 ? inherited : inherited === 0 ? own : Math.min(own, inherited);
  return {
    from: self,
    namespace: options.namespace ?? '',
    lease: options.lease ?? '',
    deadline,
    trace: options.trace ?? '',
    cursor: '',
  };
}

/** Hears of the abort of an incoming call or of a signal; returns what stops listening. */
function onAbort(options: CallOptions, abort: (failure: Failure) => void): (() => void) | undefined {
  if (options instanceof ServerCall) return options.onAbort(abort);
  const { signal } = options;
  if (signal === undefined) return undefined;
  const listener = () => abort(signal.reason instanceof Failure ? signal.reason : Failure.from(signal.reason));
  if (signal.aborted) {
    queueMicrotask(listener);
    return undefined;
  }
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

class ClientCall {
  readonly #method: MethodDefinition;
  readonly #open: (payload: Uint8Array | undefined, complete: boolean) => RoutedCall;
  readonly #inbox: Inbox<unknown>;
  #routed: RoutedCall | undefined;
  #failed: Failure | undefined;
  #resume: (() => void) | undefined;
  #unlisten: (() => void) | undefined;
  #finished = false;

  constructor(
    router: Router,
    self: string,
    contract: string,
    name: string,
    path: string,
    method: MethodDefinition,
    options: CallOptions,
  ) {
    this.#method = method;
    this.#inbox = new Inbox(
      (bytes) => this.#routed?.consumed(bytes),
      () => this.#stop(),
    );
    this.#open = (payload, complete) => {
      const routed = router.call(
        router.provider(contract, name),
        path,
        {
          meta: metaOf(self, options),
          payload,
          complete,
          single: !method.responseStream,
        },
        {
          message: (bytes) => this.#message(bytes),
          end: () => this.#end(undefined),
          fail: (failure) => this.#end(failure),
          writable: () => this.#resume?.(),
        },
      );
      if (!this.#finished) {
        this.#unlisten = onAbort(options, (failure) => {
          this.#routed?.cancel();
          this.#end(failure);
        });
      }
      return routed;
    };
  }

  request(message: unknown): void {
    try {
      this.#routed = this.#open(this.#method.requestType.encode(message).finish(), true);
    } catch (error) {
      this.#end(Failure.from(error));
    }
  }

  stream(messages: AsyncIterable<unknown>): void {
    try {
      this.#routed = this.#open(undefined, false);
    } catch (error) {
      this.#end(Failure.from(error));
      return;
    }
    void this.#pump(messages, this.#routed);
  }

  async #pump(messages: AsyncIterable<unknown>, routed: RoutedCall): Promise<void> {
    try {
      for await (const message of messages) {
        if (this.#finished) return;
        if (!routed.send(this.#method.requestType.encode(message).finish())) {
          await new Promise<void>((resolve) => {
            this.#resume = resolve;
          });
          this.#resume = undefined;
        }
      }
      routed.finish();
    } catch (error) {
      routed.cancel();
      this.#end(Failure.from(error));
    }
  }

  async reply(): Promise<unknown> {
    const first = await this.#inbox.next();
    if (first.done) throw this.#failed ?? new Failure('Internal', 'the callee ended without a reply: internal');
    return first.value;
  }

  replies(): AsyncIterable<unknown> {
    return this.#inbox;
  }

  #message(bytes: Uint8Array): void {
    try {
      this.#inbox.push(this.#method.responseType.decode(bytes), bytes.byteLength);
    } catch (error) {
      this.#routed?.cancel();
      this.#end(new Failure('Internal', `reply cannot be decoded: ${String(error)}`, { cause: error }));
    }
  }

  #end(failure: Failure | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#failed = failure;
    this.#unlisten?.();
    this.#resume?.();
    this.#inbox.finish(failure);
  }

  #stop(): void {
    this.#finished = true;
    this.#unlisten?.();
    this.#resume?.();
    this.#routed?.cancel();
  }
}
