/**
 * The contract of a plugin: what its `index.ts` exports, what it is given, and what it may be asked.
 *
 * Lifecycle of one generation (hooks of one generation never overlap):
 * `start` → `activate(state | undefined)` → serving → `suspend` → (`activate` again, or `stop`).
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import type { Records } from './records.ts';

/** A protobuf message codec, as generated under proto/gen. */
export interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
  fromPartial(partial: never): T;
}

export interface MethodDefinition {
  readonly name: string;
  // biome-ignore lint/suspicious/noExplicitAny: a codec is invariant in its message; the mapped types below recover it.
  readonly requestType: Codec<any>;
  readonly requestStream: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly responseType: Codec<any>;
  readonly responseStream: boolean;
}

/** A service as generated: `ImagesDefinition` and its kin. `fullName` is the contract's name on the bus. */
export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: { readonly [method: string]: MethodDefinition };
}

type Message<C> = C extends { decode(...args: never[]): infer M } ? M : never;
type Request<M extends MethodDefinition> = Message<M['requestType']>;
type Reply<M extends MethodDefinition> = Message<M['responseType']>;

type Handler<M extends MethodDefinition> = M['requestStream'] extends true
  ? M['responseStream'] extends true
    ? (requests: AsyncIterable<Request<M>>, call: Call) => AsyncIterable<Reply<M>>
    : (requests: AsyncIterable<Request<M>>, call: Call) => Promise<Reply<M>>
  : M['responseStream'] extends true
    ? (request: Request<M>, call: Call) => AsyncIterable<Reply<M>>
    : (request: Request<M>, call: Call) => Reply<M> | Promise<Reply<M>>;

/** What a plugin implements for a contract. */
export type Service<D extends ServiceDefinition> = { readonly [K in keyof D['methods']]: Handler<D['methods'][K]> };

/** What a caller of a contract holds. Streams end early by breaking out of the loop, which cancels the callee. */
export type Client<D extends ServiceDefinition> = {
  readonly [K in keyof D['methods']]: ClientMethod<D['methods'][K]>;
};

type ClientMethod<M extends MethodDefinition> = M['requestStream'] extends true
  ? M['responseStream'] extends true
    ? (requests: AsyncIterable<Request<M>>, options?: CallOptions) => AsyncIterable<Reply<M>>
    : (requests: AsyncIterable<Request<M>>, options?: CallOptions) => Promise<Reply<M>>
  : M['responseStream'] extends true
    ? (request: Request<M>, options?: CallOptions) => AsyncIterable<Reply<M>>
    : (request: Request<M>, options?: CallOptions) => Promise<Reply<M>>;

/** One call as its callee sees it. Pass it on as the options of a call made on its behalf: namespace, lease, deadline, abort and trace are inherited. */
export interface Call {
  /** Plugin id of the caller; `front` for a client of the daemon. */
  readonly from: string;
  /** `containerd.services.images.v1.Images/Get` */
  readonly method: string;
  /** Text of the namespace header; empty when there was none. Not validated here. */
  readonly namespace: string;
  /** Lease id; empty when there was none. */
  readonly lease: string;
  /** Milliseconds since the epoch; 0 when the call is unbounded. */
  readonly deadline: number;
  /** Aborts on cancellation, deadline, death of the caller and stop of the plugin. Made at first use. */
  readonly signal: AbortSignal;
  /** W3C traceparent; empty when the call is not traced. */
  readonly trace: string;
  /** For `migrate` streams: remembers how far the caller has been served, so that the next generation goes on from there. */
  cursor(value: string): void;
  /** The cursor a migrated stream starts from; empty on a fresh one. */
  readonly resume: string;
}

/** Options of an outgoing call; an incoming {@link Call} is one. */
export interface CallOptions {
  readonly namespace?: string;
  readonly lease?: string;
  readonly signal?: AbortSignal;
  /** Absolute, ms since the epoch; 0 = unbounded. The sooner of this, `timeoutMs` and the method's own wins. */
  readonly deadline?: number;
  readonly timeoutMs?: number;
  readonly trace?: string;
}

export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** A codec that knows its type URL, as generated for events. */
export interface EventCodec<T> extends Codec<T> {
  readonly $type: string;
}

export interface DaemonInfo {
  /** The gRPC socket path, verbatim as configured: shims derive their own socket names from it. */
  readonly address: string;
  readonly ttrpcAddress: string;
  /** Absolute path of the launcher, for a shim's `-publish-binary`. */
  readonly publishBinary: string;
  readonly root: string;
  readonly state: string;
  readonly version: string;
  readonly revision: string;
  readonly pid: number;
}

/** A child process, and a promise that settles when it has been waited for. */
export interface StartedProcess {
  readonly pid: number;
  readonly exited: Promise<unknown>;
}

export interface PluginContext<Config = Record<string, unknown>> {
  /** `TYPE.NAME` of the manifest. */
  readonly id: string;
  /** 1 for the first worker of this plugin in this daemon's life, counting up. */
  readonly generation: number;
  /** Validated against the manifest, defaults filled in. Durations are milliseconds, sizes bytes. */
  readonly config: Config;
  readonly log: Log;
  readonly records: Records;
  readonly daemon: DaemonInfo;
  /** The config's `[timeouts]` in milliseconds, by containerd's names (`io.containerd.timeout.shim.load`). */
  readonly timeouts: { readonly [name: string]: number };
  /** `<root>/<id>`; the plugin makes it. */
  readonly root: string;
  /** `<state>/<id>`; the plugin makes it. */
  readonly state: string;
  rootOf(id: string): string;
  stateOf(id: string): string;
  /** Aborts when this generation stops. */
  readonly signal: AbortSignal;
  /** A typed client of the contract's only or public provider, or of the one called `name`. */
  call<D extends ServiceDefinition>(definition: D, options?: { name?: string }): Client<D>;
  /** Names of the contract's providers, as they are planned now; an unnamed one is empty. */
  providers(definition: ServiceDefinition): readonly string[];
  /** Publishes an event that no record goes with; those of records ride in their commit. */
  publish<T>(event: { namespace: string; topic: string; type: EventCodec<T>; message: T }): Promise<void>;
  /** One holder of `name` at a time over all plugins and generations; released by death. */
  exclusive<T>(name: string, work: () => Promise<T> | T, signal?: AbortSignal): Promise<T>;
  /** Says that this thread will be inside a system call or SQLite for up to `limitMs`, so that it is shown as busy and not ended as hung. */
  busy<T>(what: string, limitMs: number, work: () => T): T;
  /** `child_process.spawn`, and the kernel learns the pid so that a dead thread's children are found. */
  spawn(file: string, args: readonly string[], options?: SpawnOptions): ChildProcess;
  /** The same for a child that `start` starts by other means: at once, since it takes this thread's priority. */
  starting<T extends StartedProcess>(start: () => T): T;
  /** What is on the disk is not known any more (a failed fsync): the daemon ends itself shortly after, and the next start verifies. Containers live on. */
  fatal(reason: string): void;
}

/** What `start` hands back. `serve` maps a contract's full name to its implementation. */
export interface PluginInstance<Config = Record<string, unknown>, State = unknown> {
  readonly serve: { readonly [contract: string]: object };
  /** Definitions of contracts that are not in proto/ (a third party's). */
  readonly definitions?: readonly ServiceDefinition[];
  /** Becomes the serving generation: locks, timers, watchers, writes. `state` comes from the generation before; undefined at boot and after a crash. */
  activate?(state: State | undefined): Promise<void> | void;
  /** Lets go of what is exclusive and returns what the next generation needs (structured-cloneable). `activate` must work again afterwards. */
  suspend?(): Promise<State> | State;
  /** New config, live; `'reload'` asks for a reload instead. */
  configure?(next: Config): Promise<undefined | 'reload'> | undefined | 'reload';
  stop?(): Promise<void> | void;
}

export interface PluginDefinition<Config = Record<string, unknown>, State = unknown> {
  /** Standby: import, open, connect; touches nothing exclusive. Throws {@link skip} when the plugin cannot work on this machine. */
  start(ctx: PluginContext<Config>): Promise<PluginInstance<Config, State>> | PluginInstance<Config, State>;
}

/** Types a plugin's definition; returns it as it is. */
export function definePlugin<Config = Record<string, unknown>, State = unknown>(
  definition: PluginDefinition<Config, State>,
): PluginDefinition<Config, State> {
  return definition;
}

/** Thrown from `start`: not a failure, this machine lacks something. Introspection shows `reason: skip plugin`. */
export class Skip extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'Skip';
  }
}

export function skip(reason: string): Skip {
  return new Skip(reason);
}
