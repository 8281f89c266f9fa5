/**
 * Plugins in the test's own thread: their `start`, `activate` and services as the daemon would use them, without workers, bus or sockets. Messages are
 * encoded and decoded on the way, as a bus does.
 *
 *     const daemon = inProcess(t, 'snapshots', 'events');                          // the nouns whose migrations run
 *     await daemon.add(overlayfs, { id: 'io.containerd.snapshotter.v1.overlayfs', name: 'overlayfs' });
 *     const snapshots = daemon.client(SnapshotsDefinition);
 *     await snapshots.stat({ key: 'a' }, { namespace: 'default' });
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { locks } from 'node:worker_threads';
import type { ExecutionContext } from 'ava';
import {
  type Call,
  type CallOptions,
  type Client,
  Failure,
  type Log,
  type PluginContext,
  type PluginDefinition,
  type PluginInstance,
  type ServiceDefinition,
} from 'troupe/plugin';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { services } from 'troupe/proto/services.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { type TestRecords, useRecords } from './records.ts';

export interface AddOptions {
  readonly id: string;
  readonly config?: Record<string, unknown>;
  /** Of a named provider. */
  readonly name?: string;
  /** Prefix of the tables it writes. */
  readonly prefix?: string;
}

/** A plugin that runs here. */
export interface Running {
  readonly id: string;
  readonly instance: PluginInstance;
  /** Everything it logged. */
  readonly log: { readonly level: string; readonly message: string; readonly fields: unknown }[];
  /** As a kernel that reloads: another start, then suspend, activate. */
  reload(): Promise<Running>;
  /** As if its thread died: its calls end, nothing of it is asked. */
  crash(): void;
  stop(): Promise<void>;
}

export interface InProcess {
  readonly root: string;
  readonly records: TestRecords;
  add<Config, State>(definition: PluginDefinition<Config, State>, options: AddOptions): Promise<Running>;
  /** Serves a contract that no plugin here does. */
  serve(definition: ServiceDefinition, service: object, name?: string): void;
  /** As a client of the daemon; `defaults` are those of every call. */
  client<D extends ServiceDefinition>(definition: D, options?: { name?: string } & CallOptions): PartialClient<D>;
}

/** A client that fills in what a request leaves out. */
export type PartialClient<D extends ServiceDefinition> = {
  readonly [K in keyof Client<D>]: Client<D>[K] extends (request: infer R, options?: CallOptions) => infer P
    ? (request: DeepPartial<R>, options?: CallOptions) => P
    : never;
};

type DeepPartial<T> = T extends bigint | Uint8Array | string | number | boolean | undefined
  ? T
  : T extends AsyncIterable<infer U>
    ? AsyncIterable<DeepPartial<U>>
    : T extends readonly (infer U)[]
      ? readonly DeepPartial<U>[]
      : { readonly [K in keyof T]?: DeepPartial<T[K]> };

interface Served {
  readonly definition: ServiceDefinition;
  readonly service: Record<string, (input: unknown, call: Call) => unknown>;
}

export function inProcess(t: ExecutionContext, ...nouns: string[]): InProcess {
  const records = useRecords(t, ...nouns);
  const root = mkdtempSync(join(scratch(), 'troupe-plugins-'));
  const served = new Map<string, Served>();
  const running: Running[] = [];
  t.teardown(async () => {
    try {
      for (const plugin of running.reverse()) await plugin.stop();
    } finally {
      rmSync(root, { recursive: true, force: true, maxRetries: 3 });
    }
  });

  const find = (contract: string, name = ''): Served => {
    const found = served.get(`${contract} ${name}`);
    if (found === undefined) throw new Failure('Unimplemented', `no plugin serves ${contract}: not implemented`);
    return found;
  };
  const daemon: InProcess = {
    root,
    records,
    serve(definition, service, name = '') {
      served.set(`${definition.fullName} ${name}`, { definition, service: service as Served['service'] });
    },
    client: (definition, options = {}) =>
      clientOf(definition, () => find(definition.fullName, options.name), 'front', options) as never,
    async add(definition, options) {
      const plugin = await start(definition as unknown as PluginDefinition, options, 1);
      await plugin.activate(undefined);
      running.push(plugin);
      return plugin;
    },
  };

  const start = async (definition: PluginDefinition, options: AddOptions, generation: number) => {
    const stopped = new AbortController();
    const log: Running['log'] = [];
    const ctx = context(options, generation, stopped.signal, log);
    const instance = await definition.start(ctx);
    const serveIt = async (): Promise<void> => {
      for (const [contract, service] of Object.entries(instance.serve)) {
        daemon.serve(await services[contract]!(), service, options.name);
      }
    };
    const end = (): void => stopped.abort(new Failure('Unavailable', `plugin ${options.id} is stopping: unavailable`));
    const plugin = {
      id: options.id,
      instance,
      log,
      async activate(state: unknown) {
        await instance.activate?.(state);
        await serveIt();
      },
      async reload(): Promise<Running> {
        const next = await start(definition, options, generation + 1);
        const state = structuredClone(await instance.suspend?.());
        await next.activate(state ?? {});
        running.splice(running.indexOf(plugin), 1, next);
        end();
        await instance.stop?.();
        return next;
      },
      crash: end,
      async stop() {
        end();
        await instance.stop?.();
      },
    };
    return plugin;
  };

  const context = (
    options: AddOptions,
    generation: number,
    signal: AbortSignal,
    log: Running['log'],
  ): PluginContext => {
    const call = <D extends ServiceDefinition>(definition: D, { name }: { name?: string } = {}): Client<D> =>
      clientOf(definition, () => find(definition.fullName, name), options.id, {});
    return {
      id: options.id,
      generation,
      config: options.config ?? {},
      log: logTo(log),
      records: records.as(options.prefix ?? ''),
      daemon: {
        address: join(root, 'troupe.sock'),
        ttrpcAddress: join(root, 'troupe.sock.ttrpc'),
        publishBinary: '/bin/false',
        root,
        state: join(root, 'state'),
        version: '0.1.0',
        revision: 'test',
        pid: process.pid,
      },
      timeouts: {},
      root: join(root, options.id),
      state: join(root, 'state', options.id),
      rootOf: (id) => join(root, id),
      stateOf: (id) => join(root, 'state', id),
      signal,
      call,
      providers: ({ fullName }) =>
        [...served.keys()].flatMap((key) => (key.startsWith(`${fullName} `) ? [key.slice(fullName.length + 1)] : [])),
      async publish({ namespace, topic, type, message }) {
        await call(EventsDefinition).publish(
          { topic, event: { typeUrl: type.$type, value: type.encode(message).finish() } },
          { namespace },
        );
      },
      fatal: (reason) => {
        throw new Error(`a plugin in a test has met what ends a daemon: ${reason}`);
      },
      exclusive: async (name, work, abort) =>
        (await locks.request(name, abort === undefined ? {} : { signal: abort }, async () => work())) as never,
      busy: (_what, _limit, work) => work(),
      spawn: () => {
        throw new Error('no processes here');
      },
      starting: (start) => start(),
    };
  };

  daemon.serve(RecordsDefinition, {
    async *changes(_request: unknown, call: Call) {
      const changed = signalled(call.signal);
      const off = records.engine.onBatch(changed.signal);
      try {
        do yield { sequence: 0n };
        while (await changed.wait());
      } finally {
        off();
      }
    },
  });
  daemon.serve(KernelDefinition, {
    list: () => ({
      plugins: running.map(({ id }) => ({ id, state: 'ready' })),
      serving: true,
    }),
  });
  return daemon;
}

function clientOf<D extends ServiceDefinition>(
  definition: D,
  find: () => Served,
  from: string,
  defaults: CallOptions,
): Client<D> {
  const client: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const pass = <T>(codec: { encode(m: T): { finish(): Uint8Array }; decode(b: Uint8Array): T }, message: T): T =>
      codec.decode(codec.encode(message).finish());
    const requestOf = (input: unknown): unknown =>
      pass(method.requestType, method.requestType.fromPartial(input as never));
    client[key] = (input: unknown, options: CallOptions = {}) => {
      const abort = new AbortController();
      const given = options.signal ?? defaults.signal;
      const signal = given === undefined ? abort.signal : AbortSignal.any([given, abort.signal]);
      const call: Call = {
        from,
        method: `${definition.fullName}/${method.name}`,
        namespace: options.namespace ?? defaults.namespace ?? '',
        lease: options.lease ?? defaults.lease ?? '',
        deadline: 0,
        trace: '',
        resume: '',
        signal,
        cursor() {},
      };
      const run = (): unknown => {
        const handler = find().service[key]!;
        return handler(method.requestStream ? input : requestOf(input), call);
      };
      if (!method.responseStream)
        return (async () => pass(method.responseType, method.responseType.fromPartial((await run()) as never)))();
      return (async function* () {
        try {
          for await (const message of run() as AsyncIterable<unknown>) {
            yield pass(method.responseType, method.responseType.fromPartial(message as never));
          }
        } finally {
          abort.abort(new Failure('Canceled', 'context canceled'));
        }
      })();
    };
  }
  return client as Client<D>;
}

function logTo(lines: Running['log']): Log {
  const write = (level: string) => (message: string, fields?: unknown) => void lines.push({ level, message, fields });
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** A wake-up that is remembered until somebody waits for it. */
function signalled(abort: AbortSignal): { signal(): void; wait(): Promise<boolean> } {
  let pending = false;
  let wake: (() => void) | undefined;
  const signal = (): void => {
    pending = true;
    wake?.();
  };
  abort.addEventListener('abort', signal);
  return {
    signal,
    async wait() {
      if (!pending) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      wake = undefined;
      pending = false;
      return !abort.aborted;
    },
  };
}

function scratch(): string {
  return statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir();
}
