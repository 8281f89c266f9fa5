/**
 * A plugin's other half in a process that is not ours, over gRPC. Nothing is asked of it before somebody asks us, so that one which is down, or was never
 * there, is no reason not to start; and every call has an end, so that one which hangs keeps its own callers and nobody else.
 */
import { type Call, type CallOptions, type Client, Failure, type Service, type ServiceDefinition } from 'troupe/plugin';
import { GrpcClient, typedClient } from 'troupe/grpc-client';

export interface RemoteConfig {
  /** Of the proxy, for messages. */
  readonly name: string;
  /** Path of a unix socket. */
  readonly address: string;
  /** Milliseconds that a call may take which only looks something up… */
  readonly deadline: number;
  /** …and one whose time grows with data. A client's own deadline holds when it is sooner. */
  readonly long_deadline: number;
}

/** Longer than grpc-js pauses between two attempts: a remote that is back is reached by the next call. One that is down refuses so much later. */
const patienceMs = 700;

export interface RemoteCall extends Pick<Partial<Call>, 'namespace' | 'lease' | 'signal' | 'deadline' | 'trace'> {}

export class Remote {
  readonly #config: RemoteConfig;
  readonly #client: GrpcClient;

  constructor(config: RemoteConfig) {
    this.#config = config;
    // Connects at the first call, and again when the connection is lost.
    this.#client = new GrpcClient(config.address, { patienceMs });
  }

  client<D extends ServiceDefinition>(definition: D): Client<D> {
    return typedClient(this.#client, definition);
  }

  options(call: RemoteCall, length: 'short' | 'long'): CallOptions {
    const { namespace, lease, signal, deadline, trace } = call;
    const { deadline: short, long_deadline: long } = this.#config;
    return {
      timeoutMs: length === 'short' ? short : long,
      ...(namespace !== undefined && { namespace }),
      ...(lease !== undefined && { lease }),
      ...(signal !== undefined && { signal }),
      ...(deadline !== undefined && { deadline }),
      ...(trace !== undefined && { trace }),
    };
  }

  /** What went wrong between us names the proxy; what the other side says is passed on as it is. */
  failure(error: unknown): Failure {
    const failure = Failure.from(error);
    if (failure.code !== 'Unavailable' && failure.code !== 'DeadlineExceeded') return failure;
    const { name, address } = this.#config;
    const suffix = failure.code === 'Unavailable' ? 'unavailable' : 'deadline exceeded';
    const text = `proxy plugin "${name}" at ${address}: ${failure.message.replace(/: (unavailable|deadline exceeded)$/, '')}: ${suffix}`;
    return new Failure(failure.code, text, { cause: error });
  }

  close(): void {
    this.#client.close();
  }
}

/** The same contract here and there: every method handed on with its namespace, lease and abort, under a deadline. `short` are those that only look up. */
export function forward<D extends ServiceDefinition>(
  definition: D,
  remote: Remote,
  short: readonly string[],
): Service<D> {
  const client = remote.client(definition) as Record<string, (input: unknown, options: CallOptions) => unknown>;
  const service: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const send = (input: unknown, call: Call) =>
      client[key]!(input, remote.options(call, short.includes(method.name) ? 'short' : 'long'));
    service[key] = method.responseStream
      ? async function* stream(input: unknown, call: Call) {
          try {
            yield* send(input, call) as AsyncIterable<unknown>;
          } catch (error) {
            throw remote.failure(error);
          }
        }
      : async (input: unknown, call: Call) => {
          try {
            return await send(input, call);
          } catch (error) {
            throw remote.failure(error);
          }
        };
  }
  return service as Service<D>;
}
