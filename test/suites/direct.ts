/**
 * A service as its caller would see it, without bus and threads: messages still pass through their codecs, streams still end by break,
 * abort and throw. For running a suite on a service alone; requests of a stream end by abort too, as when a client vanishes.
 */
import {
  type Call,
  type CallOptions,
  type Client,
  Failure,
  type MethodDefinition,
  type Service,
  type ServiceDefinition,
} from 'troupe/plugin';

export function direct<D extends ServiceDefinition>(definition: D, service: Service<D>): Client<D> {
  const client: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const handler = (service as Record<string, (input: unknown, call: Call) => unknown>)[key]!.bind(service);
    client[key] = (input: unknown, options: CallOptions = {}) => {
      const controller = new AbortController();
      const abort = () => controller.abort(options.signal?.reason);
      if (options.signal?.aborted) abort();
      options.signal?.addEventListener('abort', abort, { once: true });
      const call = toCall(`${definition.fullName}/${method.name}`, options, controller.signal);
      const argument = method.requestStream
        ? requests(method, input as AsyncIterable<unknown>, controller.signal)
        : pass(method.requestType, input);
      if (method.responseStream) return replies(method, handler, argument, call, controller);
      return (async () => pass(method.responseType, await fail(() => handler(argument, call))))();
    };
  }
  return client as Client<D>;
}

function toCall(method: string, options: CallOptions, signal: AbortSignal): Call {
  return {
    from: 'test',
    method,
    namespace: options.namespace ?? '',
    lease: options.lease ?? '',
    deadline: options.deadline ?? 0,
    signal,
    trace: options.trace ?? '',
    cursor() {},
    resume: '',
  };
}

function pass(codec: MethodDefinition['requestType'], message: unknown): unknown {
  return codec.decode(codec.encode(codec.fromPartial(message as never)).finish());
}

async function* requests(
  method: MethodDefinition,
  input: AsyncIterable<unknown>,
  signal: AbortSignal,
): AsyncGenerator<unknown> {
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  signal.addEventListener('abort', () => aborted.reject(new Failure('Canceled', 'context canceled')), { once: true });
  const iterator = input[Symbol.asyncIterator]();
  try {
    for (;;) {
      if (signal.aborted) throw new Failure('Canceled', 'context canceled');
      const next = await Promise.race([iterator.next(), aborted.promise]);
      if (next.done) return;
      yield pass(method.requestType, next.value);
    }
  } finally {
    // A caller that is inside its own next() ends in its own time.
    iterator.return?.()?.catch(() => {});
  }
}

async function* replies(
  method: MethodDefinition,
  handler: (input: unknown, call: Call) => unknown,
  argument: unknown,
  call: Call,
  controller: AbortController,
): AsyncGenerator<unknown> {
  try {
    const iterator = (handler(argument, call) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    let done = false;
    try {
      for (;;) {
        const next = await fail(() => iterator.next());
        if (next.done) {
          done = true;
          return;
        }
        yield pass(method.responseType, next.value);
      }
    } finally {
      if (!done) {
        controller.abort();
        await iterator.return?.();
      }
    }
  } finally {
    controller.abort();
  }
}

/** What crosses the border of a plugin is a Failure. */
async function fail<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw Failure.fromRecord(Failure.from(error).toRecord());
  }
}
