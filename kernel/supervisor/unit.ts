/**
 * One plugin under supervision: its state, its generations, and what happens to it.
 *
 * Boot and crash: start → activate(undefined) → ready. Where its generations come from is in generations.ts, how they end in ending.ts, what a crash does in
 * comeback.ts, and what a reload does in reload.ts.
 */
import type { Manifest } from '../plan/index.ts';
import type { PluginStats } from '../sdk/protocol.ts';
import { type Build, freshBuild } from './builds.ts';
import { Comeback } from './comeback.ts';
import { discard, drain, stopGeneration } from './ending.ts';
import { type Generation, messageOf, startStep } from './generation.ts';
import { Generations } from './generations.ts';
import { Handover, migrationsOf, type ReloadOptions, type ReloadOutcome, reloadTogether } from './reload.ts';
import type { GroupMember, RestartGroup } from './restart-group.ts';
import { allowed, type PluginState } from './transitions.ts';
import type { UnitWorld } from './unit-world.ts';
import type { WorkerHandle } from './worker-handle.ts';

export class Unit implements GroupMember {
  /** @internal */
  readonly world: UnitWorld;
  /** Migrations that the database has seen. */
  readonly migrations: readonly string[];
  /** What is started next, when nobody says otherwise. */
  build: Build;
  group: RestartGroup | undefined;
  state: PluginState = 'declared';
  reason = '';
  generation = 0;
  restarts = 0;
  serving: Generation | undefined;
  /** The worker in which a generation is starting: it may call others already. */
  starting: WorkerHandle | undefined;
  /** Generations that have been replaced and still hold calls. */
  readonly draining = new Set<Generation>();
  /** @internal A reload that has asked the serving generation to let go: its death is the reload's business. */
  handing: Handover | undefined;
  readonly #generations: Generations;
  readonly #comeback: Comeback;
  #pending: { options: ReloadOptions; outcome: Promise<ReloadOutcome> } | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  /** Resolves when it is told to stop: what waits for others to start then does not wait. */
  #stopped = Promise.withResolvers<string>();
  #stopping = false;
  #startingOwn = false;

  constructor(manifest: Manifest, world: UnitWorld) {
    this.world = world;
    this.build = freshBuild(manifest, world.config(manifest.id));
    this.migrations = migrationsOf(manifest);
    this.#generations = new Generations(world.threadName(manifest), world, () => this.build);
    this.#comeback = new Comeback(this);
  }

  get manifest(): Manifest {
    return this.build.manifest;
  }

  /** What it is started by the next time, when it does not run. */
  set manifest(manifest: Manifest) {
    this.build = freshBuild(manifest, this.build.config);
  }

  get config(): Readonly<Record<string, unknown>> {
    return this.build.config;
  }

  set config(config: Readonly<Record<string, unknown>>) {
    this.build = { ...this.build, config };
  }

  get id(): string {
    return this.build.manifest.id;
  }

  /** @internal Digests of builds that crashed in probation, with how. */
  get bad(): ReadonlyMap<string, string> {
    return this.#comeback.probation.bad;
  }

  /** First start, or one by hand: of what its folder holds now. `required` says when it may go on: undefined, or the reason why it may not. */
  async start(required: Promise<string | undefined> = Promise.resolve(undefined)): Promise<void> {
    if (this.#stopping) this.#stopped = Promise.withResolvers();
    this.#stopping = false;
    await this.exclusively(async () => {
      if (this.state === 'ready' || this.state === 'backoff' || this.#stopping) return;
      this.#comeback.probation.forgive();
      try {
        await this.bring(freshBuild(this.manifest, this.build.config), required, true);
      } catch (error) {
        if (!this.#stopping) await this.giveUp(messageOf(error));
      }
    });
  }

  /** @internal From nothing to ready, or skipped. The worker is spawned and its code imported at once, however long `required` takes. */
  async bring(build: Build, required: Promise<string | undefined>, boot: boolean): Promise<void> {
    this.go('spawning', '');
    const { startMs } = build.manifest.deadlines;
    const [missing, generation] = await Promise.all([
      Promise.race([required, this.#stopped.promise]),
      boot ? this.world.loading.through(() => this.#load(build)) : this.#load(build),
    ]);
    try {
      if (this.#stopping) throw new Error('it is being stopped');
      if (missing !== undefined) {
        if (!boot) throw new Error(missing);
        this.skip(missing);
        await this.discard(generation, 'skipped');
        return;
      }
      this.go('initializing', '');
      const outcome = await startStep(generation.handle, 'start', [this.id], startMs);
      if (outcome.t === 'skipped') {
        this.skip(outcome.reason);
        await this.discard(generation, 'skipped');
        return;
      }
      await startStep(generation.handle, 'activate', [this.id, undefined], startMs);
      generation.shapes = outcome.methods;
      this.serve(generation);
    } catch (error) {
      await this.discard(generation, 'start failed');
      throw error;
    } finally {
      this.begins(undefined, false);
    }
  }

  /** @internal Says in which worker a generation starts, and whether that is its own. */
  begins(handle: WorkerHandle | undefined, own: boolean): void {
    this.starting = handle;
    this.#startingOwn = own;
  }

  /** @internal A start that is under way in a worker of its own comes to nothing. */
  breakOff(reason: string): void {
    if (this.#startingOwn) void this.starting?.terminate(reason);
  }

  /** @internal It has been told to stop, and not been started since. */
  get stopping(): boolean {
    return this.#stopping;
  }

  /** A worker with the plugin's code imported. */
  async #load(build: Build): Promise<Generation> {
    if (this.#stopping) throw new Error('it is being stopped');
    this.build = build;
    const generation = this.#generations.make(build);
    const { handle } = generation;
    this.begins(handle, generation.own);
    try {
      await startStep(handle, 'load', [this.id], build.manifest.deadlines.loadMs);
      return generation;
    } catch (error) {
      this.begins(undefined, false);
      await this.discard(generation, 'load failed');
      throw error;
    }
  }

  /** @internal A generation in a worker of its own, not loaded yet. */
  makeOwn(build: Build, thread: string): Generation {
    return this.#generations.makeOwn(build, thread);
  }

  /** @internal The name for the worker of a successor. */
  get nextThread(): string {
    return this.#generations.nextThread;
  }

  /** @internal Becomes the serving generation. */
  serve(generation: Generation): void {
    // Its group has been given up while it came up.
    if (this.state === 'failed') throw new Error(this.reason);
    if (generation.own) this.#generations.moveOut();
    this.serving = generation;
    this.generation = generation.number;
    this.build = generation.build;
    // Calls wait for this, and for nothing below.
    this.world.serving(this, generation);
    this.go('ready', '');
    void generation.handle.exited.then((reason) => this.#ended(generation, reason));
    void this.world.staged(this, generation);
  }

  /** @internal The build that `generation` replaces is kept in mind, for when that one does not last. */
  onProbation(before: Build, generation: Generation): void {
    this.#comeback.probation.begin(before, generation.build.digest);
  }

  /** Builds whose copies are still wanted. */
  get keptCopies(): (string | undefined)[] {
    return [this.build.copy, this.#comeback.probation.before?.copy];
  }

  /** It says, or the plan says, that it has nothing to do on this machine. */
  skip(reason: string): void {
    this.go('skipped', reason);
    this.world.log('info', 'plugin skipped', { id: this.id, reason });
    this.world.ended(this, `plugin ${this.id} is skipped: ${reason}: unavailable`);
  }

  /** @internal Ends a generation that never served, or serves no more. */
  discard(generation: Generation, reason: string): Promise<void> {
    return discard(this, generation, reason);
  }

  #ended(generation: Generation, reason: string): void {
    this.draining.delete(generation);
    this.world.died(this, generation);
    if (generation.expected || this.serving !== generation) return;
    if (this.handing !== undefined) {
      this.handing.oldDied = reason;
      return;
    }
    this.#comeback.died(generation, reason);
  }

  /** @internal */
  backOff(reason: string): void {
    this.go('backoff', reason);
  }

  takeDown(reason: string): Promise<void> {
    return this.#comeback.takeDown(reason);
  }

  revive(): Promise<void> {
    return this.#comeback.revive();
  }

  /** @internal From backoff to ready, or to backoff again. */
  recover(): Promise<void> {
    return this.#comeback.recover();
  }

  async giveUp(reason: string): Promise<void> {
    if (this.state === 'stopped' || this.state === 'skipped' || this.state === 'failed') return;
    const generation = this.serving;
    this.serving = undefined;
    if (generation !== undefined) await stopGeneration(this, generation, reason);
    this.go('failed', reason);
    this.world.ended(this, `plugin ${this.id} has failed: ${reason}: unavailable`);
  }

  /** Ends the serving generation for `reason`, as a crash: it comes back as its policy says. */
  async kill(reason: string): Promise<void> {
    const generation = this.serving;
    if (generation === undefined) return;
    if (!(await generation.handle.terminate(reason))) this.world.unstoppable(this, generation.handle);
  }

  /**
   * Replaces it by the next generation. One reload at a time: while one runs, all that are asked for are one more, made from what is there when its turn comes.
   */
  reload(options: ReloadOptions = {}): Promise<ReloadOutcome> {
    if (this.#pending !== undefined) {
      const force = this.#pending.options.force === true || options.force === true;
      this.#pending.options = { ...this.#pending.options, ...options, force };
      return this.#pending.outcome;
    }
    const pending = { options, outcome: Promise.resolve() as Promise<unknown> as Promise<ReloadOutcome> };
    pending.outcome = this.exclusively(async () => {
      this.#pending = undefined;
      const [outcome] = await reloadTogether([new Handover(this, pending.options)]);
      return outcome!;
    });
    this.#pending = pending;
    return pending.outcome;
  }

  /** New config for the generation that serves: `live` when it took it, otherwise what the reload that it asked for came to. */
  async configure(config: Readonly<Record<string, unknown>>): Promise<'live' | ReloadOutcome> {
    const answer = await this.exclusively(async () => {
      const handle = this.serving?.handle;
      const wanted = await handle?.call('configure', [this.id, { ...config }], this.manifest.deadlines.startMs);
      if (wanted === undefined) this.build = { ...this.build, config };
      return wanted;
    });
    return answer === undefined ? 'live' : this.reload({ config });
  }

  /** Stops it for good, or until it is started by hand. A start that is under way is broken off. */
  async stop(reason: string): Promise<void> {
    this.#stopping = true;
    this.#stopped.resolve('it is being stopped');
    this.breakOff(reason);
    await this.exclusively(async () => {
      const generation = this.serving;
      this.serving = undefined;
      if (generation === undefined) {
        if (this.state !== 'stopped' && this.state !== 'skipped' && this.state !== 'failed') this.go('stopped', reason);
        return;
      }
      generation.expected = true;
      this.go('draining', reason);
      await Promise.all([...this.draining].map((old) => this.discard(old, reason)));
      await stopGeneration(this, generation, reason);
      this.go('stopped', reason);
      this.world.ended(this, `plugin ${this.id} is stopped: unavailable`);
    });
  }

  /** @internal Lets a generation that has been replaced finish what it runs, then ends it. */
  drain(old: Generation): Promise<void> {
    return drain(this, old);
  }

  async stats(): Promise<PluginStats | undefined> {
    return this.serving?.handle.call('stats', [this.id], 1000);
  }

  /** @internal */
  go(to: PluginState, reason: string): void {
    const from = this.state;
    if (from === to) return;
    if (!allowed(from, to)) throw new Error(`plugin ${this.id}: ${from} → ${to} is not a transition`);
    this.state = to;
    this.reason = reason;
    const at = this.world.clock.now();
    this.world.transition({ slot: this.id, generation: this.generation, from, to, reason, at });
  }

  /** @internal Start, stop and reload of one plugin never overlap. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#busy.then(work);
    this.#busy = turn.catch(() => undefined);
    return turn;
  }
}
