/** One plugin in its worker: the context it is given, its lifecycle, its links in both directions. A worker may host several. */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { locks, type MessagePort } from 'node:worker_threads';
import { CalleeLink } from '../bus/callee.ts';
import type { Deadlines } from '../bus/deadlines.ts';
import type { Port } from '../bus/frames.ts';
import { Router } from '../bus/router.ts';
import type { Scheduler } from '../bus/scheduler.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events/v1/events.ts';
import { clientOf } from './client.ts';
import type { ControlPage } from './control-page.ts';
import type { Records } from './records.ts';
import type { Urgency } from './urgency.ts';
import { definitionOf } from './definitions.ts';
import { Dispatcher } from './dispatcher.ts';
import { Failure } from './failure.ts';
import { type HandedOver, handOver, takeOver } from './handover.ts';
import type {
  CallOptions,
  Client,
  EventCodec,
  Log,
  PluginContext,
  PluginDefinition,
  PluginInstance,
  ServiceDefinition,
} from './plugin.ts';
import { messageWithPlace } from './place.ts';
import { Skip } from './plugin.ts';
import { prebuilt } from './prebuilt.ts';
import type { HostedPlugin, PluginStats, StartOutcome, Suspended, ToKernel, WorkerInit } from './protocol.ts';
import { openRecords } from './reader.ts';

export interface Thread {
  readonly init: WorkerInit;
  readonly scheduler: Scheduler;
  readonly deadlines: Deadlines;
  readonly page: ControlPage;
  readonly urgency: Urgency;
  notify(message: ToKernel): void;
}

/** What the kernel's own plugins get beside the context: records its migrations, the front the calls of everybody. */
export interface KernelContext {
  readonly migrations: WorkerInit['migrations'];
  readonly router: Router;
  readonly streamProcessors: WorkerInit['streamProcessors'];
  /**
   * What a generation that has been replaced does before it is stopped, beside letting its calls end: resolves when it holds nothing any more. For the front,
   * whose calls are not the bus's.
   */
  drain(work: () => Promise<void>): void;
}

export class PluginHost {
  readonly #plugin: HostedPlugin;
  readonly #thread: Thread;
  readonly #log: Log;
  readonly #stopped = new AbortController();
  readonly #links = new Set<CalleeLink>();
  readonly dispatcher: Dispatcher;
  readonly router: Router;
  #definition: PluginDefinition | undefined;
  #instance: PluginInstance | undefined;
  #drain: (() => Promise<void>) | undefined;

  constructor(plugin: HostedPlugin, thread: Thread) {
    this.#plugin = plugin;
    this.#thread = thread;
    this.#log = logOf(plugin.id, thread);
    const { scheduler, page } = thread;
    this.dispatcher = new Dispatcher(thread.deadlines, this.#log, new Set(plugin.migrating), {
      get waiting() {
        return scheduler.depth;
      },
      get lettingGo() {
        return page.lettingGo;
      },
      take: () => page.take(),
    });
    // Calls wait with their callers until this generation serves.
    this.dispatcher.hold();
    this.router = new Router(
      { introduce: (slot, links) => thread.notify({ t: 'introduce', id: plugin.id, slot, links }) },
      thread.scheduler,
      thread.deadlines,
    );
    this.router.setRoutes(thread.init.routes);
  }

  /** @throws Failure InvalidArgument that says what is wrong with the code, with file and line where one is to blame */
  async load(): Promise<void> {
    const { id, dir } = this.#plugin;
    const url = pathToFileURL(join(dir, 'index.ts')).href;
    const loading: Promise<{ default?: PluginDefinition }> = prebuilt.get(url)?.() ?? import(url);
    const module = await loading.catch((error: unknown) => this.#place(error));
    if (typeof module.default?.start !== 'function') {
      throw new Failure('InvalidArgument', `plugin ${id}: index.ts has no default export made by definePlugin`);
    }
    this.#definition = module.default;
  }

  async start(): Promise<StartOutcome> {
    const { protos } = this.#plugin;
    if (this.#definition === undefined) await this.load();
    const definition = this.#definition!;
    const context = this.#context();
    // Callers wait while a successor activates, and its first read would open the connection then. Records themselves are looked at before anybody reads them.
    const { generation, prefix } = this.#plugin;
    if (generation > 1 && prefix !== '' && prefix !== 'records') warm(context.records);
    try {
      this.#instance = await definition.start(context);
    } catch (error) {
      if (error instanceof Skip) return { t: 'skipped', reason: error.message };
      this.#place(error);
    }
    if (typeof this.#instance?.serve !== 'object') {
      throw new Failure('InvalidArgument', `plugin ${this.#plugin.id}: start returned no { serve }: invalid argument`);
    }
    for (const [contract, service] of Object.entries(this.#instance.serve)) {
      const known = this.#instance.definitions?.find((each) => each.fullName === contract);
      this.dispatcher.add(known ?? (await definitionOf(contract, protos[contract])), service);
    }
    return { t: 'started', methods: this.dispatcher.methods() };
  }

  async activate(state: HandedOver | undefined): Promise<void> {
    try {
      await this.#instance?.activate?.(takeOver(state));
    } catch (error) {
      this.#place(error);
    }
    this.dispatcher.resume();
  }

  /** What the kernel is told of an error is its message: the place goes with it, which only here is known. */
  #place(error: unknown): never {
    if (error instanceof Failure) throw error;
    throw new Failure('Unknown', messageWithPlace(error, this.#plugin.dir), { cause: error });
  }

  async suspend(endMs: number | undefined): Promise<Suspended> {
    this.dispatcher.hold();
    // Otherwise nobody is waited for: handlers that only compute have ended by now, and those that wait for a disk or another plugin would have
    // everybody's calls wait along.
    if (endMs !== undefined) {
      this.dispatcher.move();
      if (!(await this.dispatcher.quiesce(endMs))) return { quiet: false, running: this.dispatcher.runningMethods };
    }
    try {
      return { quiet: true, state: handOver(await this.#instance?.suspend?.()) };
    } catch (error) {
      this.#place(error);
    }
  }

  resume(): void {
    this.dispatcher.resume();
  }

  release(): void {
    this.dispatcher.hold();
    this.dispatcher.move();
  }

  async drained(): Promise<void> {
    await Promise.all([this.dispatcher.quiesce(Number.POSITIVE_INFINITY), this.#drain?.()]);
  }

  async configure(config: Record<string, unknown>): Promise<undefined | 'reload'> {
    return (
      (await this.#instance?.configure?.(config)) ?? (this.#instance?.configure === undefined ? 'reload' : undefined)
    );
  }

  async stop(): Promise<void> {
    this.dispatcher.hold();
    const reason = new Failure('Unavailable', `plugin ${this.#plugin.id} is stopping: unavailable`);
    this.#stopped.abort(reason);
    this.dispatcher.abortAll(reason);
    await this.#instance?.stop?.();
  }

  accept(from: string, port: MessagePort, page: SharedArrayBuffer): void {
    const link: CalleeLink = new CalleeLink(
      from,
      port as unknown as Port,
      page,
      this.#thread.scheduler,
      (call) => this.dispatcher.serve(call),
      () => this.#links.delete(link),
    );
    this.#links.add(link);
  }

  stats(): PluginStats {
    return {
      running: this.dispatcher.running,
      brief: this.dispatcher.brief,
      queued: this.#thread.scheduler.depth,
      pending: this.router.pending,
      methods: this.dispatcher.stats(),
    };
  }

  #context(): PluginContext & KernelContext {
    const { id, generation, config, prefix } = this.#plugin;
    const { init } = this.#thread;
    const { daemon } = init;
    const call = <D extends ServiceDefinition>(definition: D, options: { name?: string } = {}): Client<D> =>
      clientOf(this.router, id, definition, options.name);
    const events = call(EventsDefinition);
    return {
      id,
      generation,
      config,
      log: this.#log,
      daemon,
      timeouts: init.timeouts,
      root: join(daemon.root, id),
      state: join(daemon.state, id),
      rootOf: (other) => join(daemon.root, other),
      stateOf: (other) => join(daemon.state, other),
      signal: this.#stopped.signal,
      migrations: init.migrations,
      router: this.router,
      streamProcessors: init.streamProcessors,
      drain: (work) => {
        this.#drain = work;
      },
      fatal: (reason) => this.#thread.notify({ t: 'fatal', id, reason }),
      records: openRecords(init.database, prefix, (request, options) => this.#commit(request, options)),
      call,
      providers: ({ fullName }) => (this.router.routes[fullName] ?? []).map((provider) => provider.name),
      publish: async <T>(event: { namespace: string; topic: string; type: EventCodec<T>; message: T }) => {
        await events.publish(
          {
            topic: event.topic,
            event: { typeUrl: event.type.$type, value: event.type.encode(event.message).finish() },
          },
          { namespace: event.namespace },
        );
      },
      exclusive: (name, work, signal) => exclusive(name, work, signal),
      busy: (what, limitMs, work) => this.#thread.page.busy(what, limitMs, work),
      spawn: (file, args, options: SpawnOptions = {}) => this.#spawn(file, args, options),
      starting: (start) => {
        const started = this.#thread.urgency.spawning(start);
        this.#started(started.pid, started.exited);
        return started;
      },
    };
  }

  /** A commit goes out as bytes: the statements are encoded once, by the reader. */
  #commit(request: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const contract = 'troupe.records.v1.Records';
      const deadline = options.timeoutMs === undefined ? 0 : Date.now() + options.timeoutMs;
      let reply: Uint8Array = new Uint8Array();
      const routed = this.router.call(
        this.router.provider(contract),
        `${contract}/Commit`,
        {
          meta: { from: this.#plugin.id, namespace: '', lease: '', deadline, trace: '', cursor: '' },
          payload: request,
          complete: true,
          single: true,
        },
        { message: (bytes) => (reply = bytes), end: () => resolve(reply), fail: reject, writable: () => {} },
      );
      options.signal?.addEventListener('abort', () => {
        routed.cancel();
        reject(Failure.from(options.signal?.reason));
      });
    });
  }

  #spawn(file: string, args: readonly string[], options: SpawnOptions): ChildProcess {
    // Few plugins start processes, and the module takes 0.7 MB in each worker that has it.
    const { spawn } = process.getBuiltinModule('node:child_process');
    const child = this.#thread.urgency.spawning(() => spawn(file, args, options));
    const { pid } = child;
    if (pid !== undefined) this.#started(pid, new Promise((resolve) => child.once('exit', resolve)));
    return child;
  }

  #started(pid: number, exited: Promise<unknown>): void {
    this.#thread.notify({ t: 'child', id: this.#plugin.id, pid, running: true });
    const ended = () => this.#thread.notify({ t: 'child', id: this.#plugin.id, pid, running: false });
    exited.then(ended, ended);
  }
}

function warm(records: Records): void {
  try {
    records.get('SELECT 1');
  } catch {
    // Nothing to read yet, or not now: whoever reads is told.
  }
}

/** One holder at a time in the whole process; the lock of a thread that dies is free. */
async function exclusive<T>(name: string, work: () => Promise<T> | T, signal?: AbortSignal): Promise<T> {
  return (await locks.request(name, signal === undefined ? {} : { signal }, async () => work())) as T;
}

function logOf(id: string, thread: Thread): Log {
  const write = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: Record<string, unknown>) =>
    thread.notify({ t: 'log', id, level, message, fields: fields === undefined ? undefined : plain(fields) });
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}

/** Fields that can cross to the kernel: an Error becomes its text, a function or symbol its name. */
function plain(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [
      key,
      value instanceof Error
        ? (value.stack ?? value.message)
        : typeof value === 'object' && value !== null
          ? JSON.stringify(value, bigints)
          : typeof value === 'function'
            ? value.name
            : typeof value === 'symbol'
              ? String(value)
              : value,
    ]),
  );
}

function bigints(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}
