/**
 * One plugin under supervision: its state, its generations, and what happens to it.
 *
 * Boot and crash: start → activate(undefined) → ready. Reload: start(g2) → suspend(g1) → activate(g2, state) → flip; whatever of g2 fails
 * before the flip, g1 is activated again and serves on. A crash never hands state over: the state may have been the cause.
 */
import type { MethodShape } from '../bus/router.ts';
import type { Manifest } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import type { HostedPlugin, PluginStats } from '../sdk/protocol.ts';
import type { Gate } from './gate.ts';
import { RestartBudget } from './restart-budget.ts';
import type { Member, Threads } from './threads.ts';
import { allowed, type PluginState, type Transition } from './transitions.ts';
import type { WorkerHandle } from './worker-handle.ts';

/** Running unary calls get so long to end before the state is taken; those beyond finish on the suspended generation. */
const quiesceMs = 200;
/** From suspend to flip. Callers wait that long at most; past it the old generation goes on. */
const holdMs = 300;
const exclusiveHoldMs = 10_000;
/** Generations that only hold streams which end in their own time. */
const maxDraining = 8;
const drainPollMs = 100;

export interface Generation {
  readonly number: number;
  readonly handle: WorkerHandle;
  readonly shapes: readonly MethodShape[];
  /** It has a worker to itself, which ends with it. */
  readonly own: boolean;
}

/** What a unit needs of the supervisor around it. */
export interface UnitWorld {
  readonly threads: Threads;
  /** How many workers may load their code at once. */
  readonly loading: Gate;
  readonly now: () => number;
  threadName(manifest: Manifest): string;
  config(id: string): Record<string, unknown>;
  transition(transition: Transition): void;
  /** The unit serves (again), with this generation. */
  serving(unit: Unit, generation: Generation): void;
  /** The unit serves no more until it is started by hand. */
  ended(unit: Unit, reason: string): void;
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void;
  /** A worker that cannot be ended: the daemon must end itself. */
  unstoppable(unit: Unit): void;
}

/** What the next generation is made from; what is left out stays as it is. */
export interface ReloadOptions {
  /** Also when the code on disk is the code that runs. */
  readonly force?: boolean;
  /** As it has been read anew, checked and planned. */
  readonly manifest?: Manifest;
  /** Validated against that manifest. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export interface ReloadOutcome {
  readonly generation: number;
  readonly holdMs: number;
  readonly totalMs: number;
  /** `reloaded`; `kept` when the old generation serves on; `restarted` when it had to start anew; `unchanged` when there was nothing to do. */
  readonly outcome: 'reloaded' | 'kept' | 'restarted' | 'unchanged';
  readonly reason: string;
}

export class Unit implements Member {
  manifest: Manifest;
  /** Beside what the world says it is, when a reload or the operator has changed it. */
  config: Readonly<Record<string, unknown>> | undefined;
  readonly #world: UnitWorld;
  readonly #budget: RestartBudget;
  state: PluginState = 'declared';
  reason = '';
  generation = 0;
  restarts = 0;
  serving: Generation | undefined;
  /** The worker in which a generation is starting: it may call others already. */
  starting: WorkerHandle | undefined;
  readonly draining = new Set<Generation>();
  #timer: NodeJS.Timeout | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #expected = new WeakSet<WorkerHandle>();
  #nextNumber = 1;

  constructor(manifest: Manifest, world: UnitWorld) {
    this.manifest = manifest;
    this.#world = world;
    this.#budget = new RestartBudget(manifest.backoff, world.now);
  }

  get id(): string {
    return this.manifest.id;
  }

  hosted(): HostedPlugin {
    const migrating = Object.entries(this.manifest.serves).flatMap(([contract, serve]) =>
      Object.entries(serve.methods)
        .filter(([, method]) => method.onReload === 'migrate')
        .map(([method]) => `${contract}/${method}`),
    );
    const protos = Object.fromEntries(
      Object.entries(this.manifest.serves).flatMap(([contract, serve]) =>
        serve.proto === undefined ? [] : [[contract, serve.proto]],
      ),
    );
    return {
      id: this.id,
      dir: this.manifest.dir,
      generation: this.#nextNumber++,
      config: { ...(this.config ?? this.#world.config(this.id)) },
      prefix: this.manifest.records.prefix,
      migrating,
      protos,
    };
  }

  /** It says, or the plan says, that it has nothing to do on this machine. */
  skip(reason: string): void {
    this.#go('skipped', reason);
    this.#world.log('info', 'plugin skipped', { id: this.id, reason });
    this.#world.ended(this, `plugin ${this.id} is skipped: ${reason}: unavailable`);
  }

  /**
   * First start, or one by hand. Its worker is spawned and its code imported at once; `required` says when it may go on: undefined, or the
   * reason why it may not. Resolves when it is ready, failed or skipped; the state says which.
   */
  async start(required: Promise<string | undefined> = Promise.resolve(undefined)): Promise<void> {
    await this.#exclusively(async () => {
      if (this.state === 'ready' || this.state === 'backoff') return;
      try {
        await this.#bring(required);
      } catch (error) {
        this.#fail(messageOf(error));
      }
    });
  }

  async #bring(required: Promise<string | undefined> = Promise.resolve(undefined)): Promise<void> {
    this.#go('spawning', '');
    const thread = this.#world.threadName(this.manifest);
    const own = thread === this.id;
    const [missing, handle] = await Promise.all([required, this.#world.loading.through(() => this.#load(thread))]);
    const generation = { number: this.#nextNumber - 1, handle, shapes: [], own };
    try {
      if (missing !== undefined) {
        this.skip(missing);
        await this.#discard(generation, 'skipped');
        return;
      }
      this.#go('initializing', '');
      const outcome = await handle.call('start', [this.id], this.manifest.deadlines.startMs);
      if (outcome.t === 'skipped') {
        this.skip(outcome.reason);
        await this.#discard(generation, 'skipped');
        return;
      }
      await handle.call('activate', [this.id, undefined], this.manifest.deadlines.startMs);
      this.#serve({ ...generation, shapes: outcome.methods });
    } catch (error) {
      await this.#discard(generation, 'start failed');
      throw error;
    } finally {
      this.starting = undefined;
    }
  }

  /** The worker, with the plugin's code imported. */
  async #load(thread: string): Promise<WorkerHandle> {
    const handle = this.#world.threads.shared(thread);
    this.starting = handle;
    try {
      await handle.call('load', [this.id], this.manifest.deadlines.startMs);
      return handle;
    } catch (error) {
      this.starting = undefined;
      await this.#discard({ number: this.#nextNumber - 1, handle, shapes: [], own: thread === this.id }, 'load failed');
      throw error;
    }
  }

  #serve(generation: Generation): void {
    this.serving = generation;
    this.generation = generation.number;
    this.#go('ready', '');
    void generation.handle.exited.then((reason) => this.#ended(generation, reason));
    this.#world.serving(this, generation);
  }

  /** Ends a generation that never served, or serves no more. */
  async #discard(generation: Generation, reason: string): Promise<void> {
    if (!generation.own) return;
    this.#expected.add(generation.handle);
    if (!(await generation.handle.terminate(reason))) this.#world.unstoppable(this);
  }

  #ended(generation: Generation, reason: string): void {
    this.draining.delete(generation);
    if (this.#expected.has(generation.handle) || this.serving !== generation) return;
    this.serving = undefined;
    this.crashed(reason);
  }

  /** The serving generation has died. Restarts it as its policy says. */
  crashed(reason: string): void {
    this.#world.log('error', 'plugin died', { plugin: this.id, generation: this.generation, reason });
    const clean = reason === 'exited with code 0';
    if (this.manifest.restart === 'temporary' || (this.manifest.restart === 'transient' && clean)) {
      this.#fail(reason);
      return;
    }
    this.#again(reason);
  }

  #again(reason: string): void {
    const pause = this.#budget.next();
    if (pause === undefined) {
      const { restarts, withinMs } = this.manifest.backoff;
      this.#fail(`more than ${restarts} restarts in ${withinMs / 1000} s: ${reason}`);
      return;
    }
    this.#go('backoff', reason);
    this.#timer = setTimeout(() => {
      void this.#exclusively(async () => {
        if (this.state !== 'backoff') return;
        this.restarts += 1;
        try {
          await this.#bring();
        } catch (error) {
          this.#again(messageOf(error));
        }
      });
    }, pause);
  }

  #fail(reason: string): void {
    this.#go('failed', reason);
    this.#world.ended(this, `plugin ${this.id} has failed: ${reason}: unavailable`);
  }

  /** Ends the serving generation for `reason`, as a crash: it comes back as its policy says. */
  async kill(reason: string): Promise<void> {
    const generation = this.serving;
    if (generation === undefined) return;
    if (!(await generation.handle.terminate(reason))) this.#world.unstoppable(this);
  }

  reload(options: ReloadOptions = {}): Promise<ReloadOutcome> {
    return this.#exclusively(async () => {
      const { manifest, config } = this;
      this.manifest = options.manifest ?? manifest;
      this.config = options.config ?? config;
      const outcome = await this.#reload();
      if (outcome.outcome === 'kept') {
        this.manifest = manifest;
        this.config = config;
      }
      return outcome;
    });
  }

  /** New config for the generation that serves: `live` when it took it, otherwise what the reload that it asked for came to. */
  async configure(config: Readonly<Record<string, unknown>>): Promise<'live' | ReloadOutcome> {
    const answer = await this.#exclusively(async () => {
      const handle = this.serving?.handle;
      if (handle === undefined) {
        this.config = config;
        return undefined;
      }
      const wanted = await handle.call('configure', [this.id, { ...config }], this.manifest.deadlines.startMs);
      if (wanted === undefined) this.config = config;
      return wanted;
    });
    return answer === undefined ? 'live' : this.reload({ config });
  }

  async #reload(): Promise<ReloadOutcome> {
    const began = performance.now();
    const old = this.serving;
    if (old === undefined || this.state !== 'ready') {
      throw new Failure(
        'FailedPrecondition',
        `plugin ${this.id} is ${this.state}, only one that is ready can be reloaded: failed precondition`,
      );
    }
    if (this.draining.size >= maxDraining) {
      throw new Failure(
        'Unavailable',
        `plugin ${this.id} has ${this.draining.size} generations whose streams have not ended: unavailable`,
      );
    }
    const took = () => performance.now() - began;
    const next = await this.#successor();
    if (typeof next === 'string')
      return { generation: old.number, holdMs: 0, totalMs: took(), outcome: 'kept', reason: next };

    const held = performance.now();
    const exclusive = this.manifest.reload === 'exclusive';
    const hold = exclusive ? exclusiveHoldMs : holdMs;
    this.#go('suspended', 'reload');
    let state: unknown;
    try {
      state = await old.handle.call('suspend', [this.id, exclusive ? exclusiveHoldMs : quiesceMs], quiesceMs + hold);
    } catch (error) {
      return this.#anew(old, next, held, began, `suspend: ${messageOf(error)}`);
    }
    try {
      // A copy: what g2 does to it must not be seen by g1, should that have to go on.
      await next.handle.call('activate', [this.id, state], Math.max(50, hold - (performance.now() - held)));
    } catch (error) {
      const reason = `activate: ${messageOf(error)}`;
      await this.#discard(next, reason);
      try {
        await old.handle.call('activate', [this.id, state], this.manifest.deadlines.startMs);
      } catch (again) {
        return this.#anew(old, undefined, held, began, `${reason}; and the old generation: ${messageOf(again)}`);
      }
      this.#go('ready', reason);
      this.#world.serving(this, old);
      return { generation: old.number, holdMs: performance.now() - held, totalMs: took(), outcome: 'kept', reason };
    }
    this.draining.add(old);
    this.#serve(next);
    const heldMs = performance.now() - held;
    void this.#drain(old);
    return { generation: next.number, holdMs: heldMs, totalMs: took(), outcome: 'reloaded', reason: '' };
  }

  /** The next generation, started and standing by; a text when it could not be had, and the one that serves never noticed. */
  async #successor(): Promise<Generation | string> {
    const handle = this.#world.threads.own(this, `${this.id}#${this.#nextNumber}`);
    const number = this.#nextNumber - 1;
    try {
      const outcome = await handle.call('start', [this.id], this.manifest.deadlines.startMs);
      if (outcome.t === 'started') return { number, handle, shapes: outcome.methods, own: true };
      await this.#discard({ number, handle, shapes: [], own: true }, 'skipped');
      return `skipped: ${outcome.reason}`;
    } catch (error) {
      await this.#discard({ number, handle, shapes: [], own: true }, 'start failed');
      return messageOf(error);
    }
  }

  /** The old generation has let go and cannot go on: it has crashed, and its build starts anew. */
  async #anew(
    old: Generation,
    next: Generation | undefined,
    held: number,
    began: number,
    reason: string,
  ): Promise<ReloadOutcome> {
    if (next !== undefined) await this.#discard(next, reason);
    this.serving = undefined;
    this.#expected.add(old.handle);
    if (!(await old.handle.terminate(reason))) this.#world.unstoppable(this);
    this.#go('backoff', reason);
    this.restarts += 1;
    try {
      await this.#bring();
    } catch (error) {
      this.#again(messageOf(error));
    }
    return {
      generation: this.generation,
      holdMs: performance.now() - held,
      totalMs: performance.now() - began,
      outcome: 'restarted',
      reason,
    };
  }

  /** Lets a generation that has been replaced finish what it runs, then ends it. */
  async #drain(old: Generation): Promise<void> {
    try {
      await old.handle.call('release', [this.id], this.manifest.deadlines.stopMs);
      for (;;) {
        const stats = await old.handle.call('stats', [this.id], this.manifest.deadlines.stopMs);
        if (stats.running === 0) break;
        await new Promise((resolve) => setTimeout(resolve, drainPollMs));
      }
      await old.handle.call('stop', [this.id], this.manifest.deadlines.stopMs);
    } catch (error) {
      this.#world.log('warn', 'old generation ended badly', {
        plugin: this.id,
        generation: old.number,
        error: messageOf(error),
      });
    }
    await this.#discard(old, 'replaced');
    this.draining.delete(old);
  }

  /** Stops it for good, or until it is started by hand. */
  async stop(reason: string): Promise<void> {
    clearTimeout(this.#timer);
    await this.#exclusively(async () => {
      const generation = this.serving;
      this.serving = undefined;
      if (generation === undefined) {
        if (this.state !== 'stopped' && this.state !== 'skipped' && this.state !== 'failed')
          this.#go('stopped', reason);
        return;
      }
      this.#expected.add(generation.handle);
      this.#go('draining', reason);
      try {
        await generation.handle.call('stop', [this.id], this.manifest.deadlines.stopMs);
      } catch (error) {
        this.#world.log('warn', 'plugin did not stop as asked', { plugin: this.id, error: messageOf(error) });
      }
      await Promise.all([...this.draining].map((old) => this.#discard(old, reason)));
      await this.#discard(generation, reason);
      this.#go('stopped', reason);
      this.#world.ended(this, `plugin ${this.id} is stopped: unavailable`);
    });
  }

  async stats(): Promise<PluginStats | undefined> {
    return this.serving?.handle.call('stats', [this.id], 1000);
  }

  #go(to: PluginState, reason: string): void {
    const from = this.state;
    if (from === to) return;
    if (!allowed(from, to)) throw new Error(`plugin ${this.id}: ${from} → ${to} is not a transition`);
    this.state = to;
    this.reason = reason;
    this.#world.transition({ slot: this.id, generation: this.generation, from, to, reason, at: this.#world.now() });
  }

  /** Start, stop and reload of one plugin never overlap. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#busy.then(work);
    this.#busy = turn.catch(() => undefined);
    return turn;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
