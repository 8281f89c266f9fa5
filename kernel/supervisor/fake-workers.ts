/** For tests: a supervisor whose workers are objects and whose time is turned by hand, so that a thousand deaths and an hour of waiting cost nothing. */
import { setImmediate } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { type Manifest, parseManifest } from '../plan/manifest.ts';
import { type PlanOptions, plan } from '../plan/index.ts';
import { pageBytes } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { ToWorker, WorkerControl } from '../sdk/protocol.ts';
import type { Clock } from './clock.ts';
import type { Incident } from './incident.ts';
import type { SupervisorOptions } from './options.ts';
import { Supervisor } from './supervisor.ts';
import type { Transition } from './transitions.ts';
import type { MakeWorker, WorkerHandle, WorkerLimits } from './worker-handle.ts';

/** Nobody can make a directory here: no copies of builds, and nothing to remove. (Not under /proc, where Node's recursive mkdir never comes back.) */
const nowhere = '/dev/null/nowhere';

/** Time stands still until it is told to go on. */
export class HandClock implements Clock {
  #now = 1_000_000;
  readonly #due = new Set<{ at: number; work: () => void }>();

  now = (): number => this.#now;

  after(ms: number, work: () => void): () => void {
    const due = { at: this.#now + ms, work };
    this.#due.add(due);
    return () => this.#due.delete(due);
  }

  /** What falls due on the way is done when it does, and what comes of it has time to happen. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      await settled();
      const next = [...this.#due].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#due.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.work();
    }
    this.#now = until;
    await settled();
  }
}

/** Turns the clock until it is so. A start looks at files, which takes real time however little of the clock's. */
export async function turnUntil(clock: HandClock, condition: () => boolean): Promise<void> {
  while (!condition()) await clock.advance(100);
}

/** Whatever can happen without anybody's doing has happened. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await setImmediate();
}

/** What a worker does with a control call: a value, or what it throws; `never`: it does not answer. */
export type Behaviour = (
  plugin: string,
  method: keyof WorkerControl,
  worker: FakeWorker,
) => { readonly answer?: unknown; readonly fails?: string; readonly dies?: string; readonly never?: true } | undefined;

export class FakeWorker implements WorkerHandle {
  readonly thread: string;
  readonly plugins: readonly string[];
  readonly limits: WorkerLimits;
  readonly page = new SharedArrayBuffer(pageBytes);
  readonly worker: WorkerHandle['worker'];
  readonly exited: Promise<string>;
  readonly sent: ToWorker[] = [];
  /** Bytes that it says it holds. */
  usedMb = 1;
  gone = false;
  readonly #end: (reason: string) => void;
  readonly #behaviour: Behaviour;

  constructor(init: Parameters<MakeWorker>[0], limits: WorkerLimits, behaviour: Behaviour) {
    this.thread = init.thread;
    this.plugins = init.plugins.map(({ id }) => id);
    this.limits = limits;
    this.#behaviour = behaviour;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.exited = promise;
    this.#end = resolve;
    let active = 0;
    this.worker = {
      threadId: -1,
      performance: {
        eventLoopUtilization: () => {
          active += 1000;
          return { idle: 0, active, utilization: 1 };
        },
      } as never,
      cpuUsage: () => Promise.reject(new Error('it has none')),
      getHeapStatistics: async () => ({ used_heap_size: this.usedMb * 2 ** 20, external_memory: 0 }) as never,
      startCpuProfile: () => Promise.reject(new Error('it has none')),
      getHeapSnapshot: () => Promise.reject(new Error('it has none')),
    };
  }

  /** As its beat. */
  beat(): void {
    Atomics.add(new Int32Array(this.page), 0, 1);
  }

  die(reason: string): void {
    if (this.gone) return;
    this.gone = true;
    this.#end(reason);
  }

  send(message: ToWorker): void {
    this.sent.push(message);
    if ('port' in message) message.port.close();
  }

  async call<K extends keyof WorkerControl>(
    method: K,
    args: Parameters<WorkerControl[K]>,
    deadlineMs: number,
  ): Promise<Awaited<ReturnType<WorkerControl[K]>>> {
    type Answer = Awaited<ReturnType<WorkerControl[K]>>;
    await setImmediate();
    const { answer, fails, dies, never } = this.#behaviour(String(args[0]), method, this) ?? {};
    if (dies !== undefined) this.die(dies);
    if (this.gone) throw new Failure('Unavailable', `worker ${this.thread} ended during ${method}: ${dies ?? ''}`);
    if (fails !== undefined) throw new Error(fails);
    if (never === true) {
      // No deadline is waited out here: who never answers is late at once.
      if (deadlineMs === Number.POSITIVE_INFINITY) {
        throw new Failure('Unavailable', `worker ${this.thread} ended during ${method}: ${await this.exited}`);
      }
      throw new Failure('DeadlineExceeded', `worker ${this.thread} has not answered ${method}: deadline exceeded`);
    }
    return (answer ?? defaults[method]) as Answer;
  }

  terminate(reason: string): Promise<boolean> {
    this.die(reason);
    return Promise.resolve(true);
  }
}

const defaults: { readonly [K in keyof WorkerControl]?: unknown } = {
  start: { t: 'started', methods: [] },
  suspend: { quiet: true, state: undefined },
  stats: { running: 0, brief: 0, queued: 0, pending: 0, methods: [] },
  running: [],
};

export function manifest(id: string, body = ''): Manifest {
  return parseManifest(`api = 1\nid = "${id}"\n${body}`, `/nowhere/${id}/plugin.toml`);
}

export interface FakeRig {
  readonly supervisor: Supervisor;
  readonly clock: HandClock;
  readonly workers: FakeWorker[];
  readonly transitions: Transition[];
  readonly incidents: Incident[];
  readonly fatal: string[];
  readonly gaveUp: string[];
  /** The worker that a plugin lives in now. */
  worker(id: string): FakeWorker;
}

export function useFakes(
  t: ExecutionContext,
  manifests: readonly Manifest[],
  behaviour: Behaviour = () => undefined,
  options: PlanOptions & Partial<Pick<SupervisorOptions, 'unresponsiveMs' | 'killMs' | 'threads'>> = {},
): FakeRig {
  const planned = plan([...manifests], options);
  if (!planned.ok) throw new Error(planned.problems.map(({ message }) => message).join('; '));
  const clock = new HandClock();
  const workers: FakeWorker[] = [];
  const transitions: Transition[] = [];
  const incidents: Incident[] = [];
  const fatal: string[] = [];
  const gaveUp: string[] = [];
  const supervisor = new Supervisor({
    configs: new Map(),
    threads: options.threads ?? new Map(),
    unresponsiveMs: options.unresponsiveMs ?? 1000,
    killMs: options.killMs ?? 0,
    stallMs: 0,
    plan: planned,
    first: planned.order,
    front: { manifest: manifest('test.v1.front'), config: {} },
    daemon: {
      address: '',
      ttrpcAddress: '',
      publishBinary: '',
      root: nowhere,
      state: nowhere,
      version: '',
      revision: '',
      pid: 0,
    },
    timeouts: {},
    logger: {
      enabled: () => true,
      write: (level, message, fields) => {
        if (process.env.RIG_LOG !== undefined) console.error(level, message, JSON.stringify(fields));
      },
    },
    fatal: (reason) => void fatal.push(reason),
    giveUp: (reason) => void gaveUp.push(reason),
    clock,
    makeWorker: (init, limits) => {
      const worker = new FakeWorker(init, limits, behaviour);
      workers.push(worker);
      return worker;
    },
  });
  supervisor.onTransition((transition) => transitions.push(transition));
  supervisor.onIncident((incident) => incidents.push(incident));
  t.teardown(() => supervisor.stop());
  return {
    supervisor,
    clock,
    workers,
    transitions,
    incidents,
    fatal,
    gaveUp,
    worker: (id) => supervisor.unit(id).serving!.handle as FakeWorker,
  };
}

/** Numbers from 0 to 1 that are the same for the same seed (mulberry32). */
export function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
