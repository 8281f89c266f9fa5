/**
 * A gRPC client of the daemon's socket for our own tools: the command line, tests, the demo. Bytes go through untouched, and `typedClient` puts the
 * generated codecs on top, so that a contract is called here as it is inside the daemon.
 */
import { connectivityState, credentials, Client as GrpcChannel, Metadata, type ServiceError } from '@grpc/grpc-js';
import { Failure } from '../sdk/failure.ts';
import type { CallOptions, Client, MethodDefinition, ServiceDefinition } from '../sdk/plugin.ts';
import { failureOf } from './status.ts';

export interface ClientOptions {
  /** Sent with every call that says nothing else. */
  readonly namespace?: string;
  readonly lease?: string;
  /** Largest message either way; default 16 MiB, as the daemon's. */
  readonly maxMessageSize?: number;
  /**
   * Milliseconds for which a call waits where the last attempt to connect has failed. Default 0: until the next attempt, half a second later at most, calls are refused
   * without looking whether the server is there by now.
   */
  readonly patienceMs?: number;
}

const asBytes = (message: Uint8Array): Buffer => Buffer.from(message.buffer, message.byteOffset, message.byteLength);
const asIs = (bytes: Buffer): Uint8Array => bytes;

export class GrpcClient {
  readonly #channel: GrpcChannel;
  readonly #options: ClientOptions;

  /** @param address path of a unix socket, or `HOST:PORT` for a server without TLS */
  constructor(address: string, options: ClientOptions = {}) {
    const size = options.maxMessageSize ?? 16 << 20;
    this.#options = options;
    this.#channel = new GrpcChannel(address.includes('/') ? `unix:${address}` : address, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost', // what containerd's own clients send for a unix socket
      'grpc.max_receive_message_length': size,
      'grpc.max_send_message_length': size,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      // Two clients of one test must not share a connection: closing one is an event for the daemon.
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  /** Resolves when the server has been reached. @throws Failure Unavailable after `timeoutMs` */
  ready(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#channel.waitForReady(Date.now() + timeoutMs, (error) => {
        if (error === undefined) resolve();
        else reject(new Failure('Unavailable', `no answer within ${timeoutMs} ms: unavailable`, { cause: error }));
      });
    });
  }

  close(): void {
    this.#channel.close();
  }

  /** @param method `containerd.services.images.v1.Images/Get` */
  unary(method: string, request: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#single(options, (metadata, deadline, done) =>
      this.#channel.makeUnaryRequest(`/${method}`, asBytes, asIs, request, metadata, deadline, done),
    );
  }

  /** The server answers once, after the last request or before. */
  clientStream(method: string, requests: AsyncIterable<Uint8Array>, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#single(options, (metadata, deadline, done) => {
      const call = this.#channel.makeClientStreamRequest(`/${method}`, asBytes, asIs, metadata, deadline, done);
      send(requests, call);
      return call;
    });
  }

  /** Leaving the loop early cancels the call. */
  serverStream(method: string, request: Uint8Array, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    const { metadata, deadline } = this.#start(options);
    return this.#replies(
      () => this.#channel.makeServerStreamRequest(`/${method}`, asBytes, asIs, request, metadata, deadline),
      deadline,
      options.signal,
    );
  }

  /** Requests are sent while replies are read. Leaving the loop early cancels the call. */
  duplex(method: string, requests: AsyncIterable<Uint8Array>, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    const { metadata, deadline } = this.#start(options);
    return this.#replies(
      () => {
        const call = this.#channel.makeBidiStreamRequest(`/${method}`, asBytes, asIs, metadata, deadline);
        send(requests, call);
        return call;
      },
      deadline,
      options.signal,
    );
  }

  #replies(
    make: () => ReplySource,
    deadline: { deadline?: number },
    signal: AbortSignal | undefined,
  ): AsyncIterable<Uint8Array> {
    const patience = this.#patience(deadline, signal);
    return patience === undefined ? replies(make(), signal) : later(patience, make, signal);
  }

  /** Undefined where there is nothing to wait for. Ends with the call's deadline and its signal, and never rejects: the call itself says what is wrong. */
  #patience(
    { deadline = Number.POSITIVE_INFINITY }: { deadline?: number },
    signal: AbortSignal | undefined,
  ): Promise<void> | undefined {
    const { patienceMs = 0 } = this.#options;
    if (patienceMs === 0 || signal?.aborted === true) return undefined;
    const state = this.#channel.getChannel().getConnectivityState(true);
    if (state !== connectivityState.TRANSIENT_FAILURE) return undefined;
    return new Promise((resolve) => {
      const end = () => {
        signal?.removeEventListener('abort', end);
        resolve();
      };
      signal?.addEventListener('abort', end, { once: true });
      const until = Math.min(Date.now() + patienceMs, deadline);
      this.#channel.waitForReady(until, (error) => {
        // Timers ring up to a millisecond early, and a call that has that left is told of the connection and not of its deadline.
        const early = error === undefined ? 0 : until - Date.now();
        if (early > 0) setTimeout(end, early + 1);
        else end();
      });
    });
  }

  #start(options: CallOptions): { metadata: Metadata; deadline: { deadline?: number } } {
    const metadata = new Metadata();
    const namespace = options.namespace ?? this.#options.namespace;
    const lease = options.lease ?? this.#options.lease;
    if (namespace !== undefined && namespace !== '') metadata.set('containerd-namespace', namespace);
    if (lease !== undefined && lease !== '') metadata.set('containerd-lease', lease);
    if (options.trace !== undefined && options.trace !== '') metadata.set('traceparent', options.trace);
    const ends = [options.timeoutMs === undefined ? 0 : Date.now() + options.timeoutMs, options.deadline ?? 0].filter(
      (end) => end > 0,
    );
    return { metadata, deadline: ends.length > 0 ? { deadline: Math.min(...ends) } : {} };
  }

  async #single(
    options: CallOptions,
    make: (
      metadata: Metadata,
      deadline: { deadline?: number },
      done: (error: ServiceError | null, reply?: Uint8Array) => void,
    ) => { cancel(): void },
  ): Promise<Uint8Array> {
    const { metadata, deadline } = this.#start(options);
    const patience = this.#patience(deadline, options.signal);
    if (patience !== undefined) await patience;
    return new Promise((resolve, reject) => {
      const cancel = () => call.cancel();
      const call = make(metadata, deadline, (error, reply) => {
        options.signal?.removeEventListener('abort', cancel);
        if (error !== null) reject(failureOf(error));
        else resolve(reply ?? new Uint8Array());
      });
      if (options.signal?.aborted === true) cancel();
      options.signal?.addEventListener('abort', cancel, { once: true });
    });
  }
}

/** The part of grpc-js' writable calls that is needed here. */
interface RequestSink {
  write(message: Uint8Array): boolean;
  once(event: 'drain' | 'close', listener: () => void): unknown;
  off(event: 'drain' | 'close', listener: () => void): unknown;
  end(): void;
  cancel(): void;
}

async function* later(
  patience: Promise<void>,
  make: () => ReplySource,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  await patience;
  yield* replies(make(), signal);
}

/** Waits for the call to take what it has; a source that throws cancels the call, and its answer says so. */
async function send(
  requests: AsyncIterable<Uint8Array>,
  call: RequestSink & { on(event: 'error', listener: () => void): unknown },
): Promise<void> {
  let closed = false;
  const close = () => {
    closed = true;
  };
  call.once('close', close);
  call.on('error', close); // told to whoever reads the answer; without a listener Node would end the process
  try {
    for await (const request of requests) {
      if (closed) return;
      if (call.write(request)) continue;
      await new Promise<void>((resolve) => {
        const go = () => {
          call.off('drain', go);
          call.off('close', go);
          resolve();
        };
        call.once('drain', go);
        call.once('close', go);
      });
    }
    if (!closed) call.end();
  } catch {
    call.cancel();
  }
}

/** The part of grpc-js' readable calls that is needed here. */
interface ReplySource {
  on(event: 'data', listener: (reply: Uint8Array) => void): unknown;
  on(event: 'error', listener: (error: ServiceError) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  pause(): unknown;
  resume(): unknown;
  cancel(): void;
}

/**
 * By events and not by Node's iterator, which destroys a duplex stream with what is still to be sent when its readable half ends, and which grpc-js'
 * `error`, emitted without a destroy, does not end. `end` comes in every case and after all data, so it ends this one.
 */
async function* replies(call: ReplySource, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const arrived: Uint8Array[] = [];
  let ended = false;
  let failure: ServiceError | undefined;
  let wake = () => {};
  call.on('data', (reply) => {
    arrived.push(reply);
    call.pause();
    wake();
  });
  call.on('error', (error) => {
    failure = error;
  });
  call.on('end', () => {
    ended = true;
    wake();
  });
  const cancel = () => call.cancel();
  if (signal?.aborted === true) cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    for (;;) {
      for (let reply = arrived.shift(); reply !== undefined; reply = arrived.shift()) yield reply;
      if (ended) break;
      const waiting = new Promise<void>((resolve) => {
        wake = resolve;
      });
      call.resume();
      await waiting;
    }
    if (failure !== undefined) throw failureOf(failure);
  } finally {
    signal?.removeEventListener('abort', cancel);
    call.cancel();
  }
}

/** `typedClient(client, ImagesDefinition).get({ name: 'x' }, { namespace: 'default' })` */
export function typedClient<D extends ServiceDefinition>(client: GrpcClient, definition: D): Client<D> {
  const typed: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    typed[key] = (input: never, options: CallOptions = {}) =>
      invoke(client, `${definition.fullName}/${method.name}`, method, input, options);
  }
  return typed as Client<D>;
}

function invoke(
  client: GrpcClient,
  path: string,
  method: MethodDefinition,
  input: unknown,
  options: CallOptions,
): unknown {
  const decode = (bytes: Uint8Array): unknown => method.responseType.decode(bytes);
  if (method.requestStream) {
    const requests = mapped(input as AsyncIterable<never>, (message) =>
      method.requestType.encode(method.requestType.fromPartial(message)).finish(),
    );
    if (method.responseStream) return mapped(client.duplex(path, requests, options), decode);
    return client.clientStream(path, requests, options).then(decode);
  }
  const request = method.requestType.encode(method.requestType.fromPartial(input as never)).finish();
  if (method.responseStream) return mapped(client.serverStream(path, request, options), decode);
  return client.unary(path, request, options).then(decode);
}

async function* mapped<A, B>(source: AsyncIterable<A>, change: (item: A) => B): AsyncGenerator<B> {
  for await (const item of source) yield change(item);
}
