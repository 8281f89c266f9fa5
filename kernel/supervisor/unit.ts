/**
 * One plugin under supervision: its state, its generations, and what happens to it.
 *
 * Boot and crash: start → activate(undefined) → ready. A crash never hands state over: the state may have been the cause. What a reload does is in reload.ts.
 */
import type { Manifest } from '../plan/index.ts';
import type { HostedPlugin, PluginStats } from '../sdk/protocol.ts';
import { type Build, freshBuild, inBuild } from './builds.ts';
import { type Generation, messageOf, startStep } from './generation.ts';
import { Handover, migrationsOf, type ReloadOptions, type ReloadOutcome, reloadTogether } from './reload.ts';
import type { GroupMember, RestartGroup } from './restart-group.ts';
import type { Member } from './threads.ts';
import { allowed, type PluginState } from './transitions.ts';
import type { UnitWorld } from './unit-world.ts';
import type { WorkerHandle } from './worker-handle.ts';

export type { Generation } from './generation.ts';
export type { ReloadOptions, ReloadOutcome } from './reload.ts';

/** A crash so soon after a reload is the new build's fault, and the one before takes its place again. */
const probationMs = 30_000;

interface Probation {
  readonly until: number;
  readonly before: Build;
  readonly digest: string | undefined;
}

export class Unit implements Member, GroupMember {
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
  /** Digests of builds that crashed in probation, with how. */
  readonly bad = new Map<string, string>();
  /** @internal A reload that has asked the serving generation to let go: its death is the reload's business. */
  handing: Handover | undefined;
  #thread: string;
  #probation: Probation | undefined;
  #pending: { options: ReloadOptions; outcome: Promise<ReloadOutcome> } | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #nextNumber = 1;
  /** Resolves when it is told to stop: what waits for others to start then does not wait. */
  #stopped = Promise.withResolvers<string>();
  /** Resolves when it has to go with another of its group. */
  #down = Promise.withResolvers<string>();
  #stopping = false;
  #startingOwn = false;

  constructor(manifest: Manifest, world: UnitWorld) {
    this.world = world;
    this.build = freshBuild(manifest, world.config(manifest.id));
    this.migrations = migrationsOf(manifest);
    this.#thread = world.threadName(manifest);
    world.threads.join(this.#thread, this);
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

  hosted(build: Build = this.build): HostedPlugin {
    const { dir } = build;
    const { id, records, serves } = build.manifest;
    const migrating = Object.entries(serves).flatMap(([contract, serve]) =>
      Object.entries(serve.methods)
        .filter(([, method]) => method.onReload === 'migrate')
        .map(([method]) => `${contract}/${method}`),
    );
    const protos = Object.fromEntries(
      Object.entries(serves).flatMap(([contract, { proto }]) =>
        proto === undefined ? [] : [[contract, inBuild(build, proto)]],
      ),
    );
    const config = { ...build.config };
    return { id, dir, generation: this.#nextNumber++, config, prefix: records.prefix, migrating, protos };
  }

  /** First start, or one by hand: of what its folder holds now. `required` says when it may go on: undefined, or the reason why it may not. */
  async start(required: Promise<string | undefined> = Promise.resolve(undefined)): Promise<void> {
    if (this.#stopping) this.#stopped = Promise.withResolvers();
    this.#stopping = false;
    await this.exclusively(async () => {
      if (this.state === 'ready' || this.state === 'backoff' || this.#stopping) return;
      // Whoever starts it by hand has looked at it.
      this.bad.clear();
      this.#probation = undefined;
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

  /** A worker with the plugin's code imported. */
  async #load(build: Build): Promise<Generation> {
    if (this.#stopping) throw new Error('it is being stopped');
    // A shared worker is made from what its members would start by themselves.
    this.build = build;
    const generation = this.#make(build);
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

  #make(build: Build): Generation {
    const { threads, clock } = this.world;
    const madeAt = clock.now();
    const shared = this.#thread === this.id ? undefined : threads.shared(this.#thread, this);
    if (shared === undefined) return this.makeOwn(build, this.id);
    return { number: this.#nextNumber - 1, handle: shared, own: false, build, madeAt, shapes: [], expected: false };
  }

  /** @internal A generation in a worker of its own, not loaded yet. */
  makeOwn(build: Build, thread: string): Generation {
    const { threads, clock } = this.world;
    const madeAt = clock.now();
    const member: Member = { id: this.id, manifest: build.manifest, hosted: () => this.hosted(build) };
    const handle = threads.own(member, thread);
    return { number: this.#nextNumber - 1, handle, own: true, build, madeAt, shapes: [], expected: false };
  }

  /** @internal The name for the worker of a successor. */
  get nextThread(): string {
    return `${this.id}#${this.#nextNumber}`;
  }

  /** @internal Becomes the serving generation. */
  serve(generation: Generation): void {
    // Its group has been given up while it came up.
    if (this.state === 'failed') throw new Error(this.reason);
    if (generation.own && this.#thread !== this.id) {
      // Its modules stay in the worker that it shared; the others live on there without it.
      this.world.threads.leave(this.#thread, this);
      this.#thread = this.id;
    }
    this.serving = generation;
    this.generation = generation.number;
    this.build = generation.build;
    this.go('ready', '');
    void generation.handle.exited.then((reason) => this.#ended(generation, reason));
    this.world.serving(this, generation);
    void this.world.staged(this, generation);
  }

  /** @internal The build that `generation` replaces is kept in mind, for when that one does not last. */
  onProbation(before: Build, generation: Generation): void {
    this.#probation = {
      until: this.world.clock.now() + probationMs,
      before,
      digest: generation.build.digest,
    };
  }

  /** Builds whose copies are still wanted. */
  get keptCopies(): (string | undefined)[] {
    return [this.build.copy, this.#probation?.before.copy];
  }

  /** It says, or the plan says, that it has nothing to do on this machine. */
  skip(reason: string): void {
    this.go('skipped', reason);
    this.world.log('info', 'plugin skipped', { id: this.id, reason });
    this.world.ended(this, `plugin ${this.id} is skipped: ${reason}: unavailable`);
  }

  /** @internal Ends a generation that never served, or serves no more. */
  async discard(generation: Generation, reason: string): Promise<void> {
    if (!generation.own) return;
    generation.expected = true;
    if (!(await generation.handle.terminate(reason))) this.world.unstoppable(this, generation.handle);
  }

  #ended(generation: Generation, reason: string): void {
    this.draining.delete(generation);
    this.world.died(this, generation);
    if (generation.expected || this.serving !== generation) return;
    if (this.handing !== undefined) {
      this.handing.oldDied = reason;
      return;
    }
    this.#crashed(generation, reason);
  }

  /** The serving generation has died. Restarts it as its policy says. */
  #crashed(generation: Generation, reason: string): void {
    this.serving = undefined;
    this.world.log('error', 'plugin died', { plugin: this.id, generation: generation.number, reason });
    if (this.manifest.restart === 'transient' && reason === 'exited with code 0') {
      this.go('draining', reason);
      this.go('stopped', reason);
      this.world.ended(this, `plugin ${this.id} has ended: unavailable`);
      return;
    }
    this.#endProbation(reason);
    if (this.manifest.restart === 'temporary') void this.giveUp(reason);
    else this.#again(generation.handle, reason);
  }

  #endProbation(reason: string): void {
    const probation = this.#probation;
    this.#probation = undefined;
    if (probation === undefined || this.world.clock.now() >= probation.until) return;
    if (probation.digest !== undefined) this.bad.set(probation.digest, reason);
    // Without a copy there is nothing else to start than what has crashed.
    if (probation.before.copy === undefined) return;
    this.build = probation.before;
    this.world.reloadFailed(this, 'probation', reason);
    this.world.adopted(this.manifest);
  }

  /** @internal One more try, as the budget allows. */
  #again(cause: object, reason: string): void {
    if (this.#stopping || this.state === 'failed') return;
    if (this.group === undefined) void this.giveUp(reason);
    else this.group.failed(this, cause, reason);
  }

  /** @internal */
  backOff(reason: string): void {
    this.go('backoff', reason);
  }

  async takeDown(reason: string): Promise<void> {
    // One that is coming up may be waiting for the very one that it has to go along with.
    this.#down.resolve(reason);
    if (this.#startingOwn) void this.starting?.terminate(reason);
    await this.exclusively(async () => {
      this.#down = Promise.withResolvers();
      const generation = this.serving;
      if (generation === undefined || this.state !== 'ready') return;
      this.serving = undefined;
      generation.expected = true;
      this.backOff(reason);
      await this.#stopGeneration(generation, reason);
    });
  }

  async revive(): Promise<void> {
    await this.exclusively(async () => {
      if (this.state !== 'backoff') return;
      await this.recover();
    });
  }

  /** @internal From backoff: the same build again, from its copy when its folder holds another by now. */
  async recover(): Promise<void> {
    this.restarts += 1;
    const build = await this.world.startable(this.build);
    let takenDown: string | undefined;
    const down = this.#down.promise.then((reason) => {
      takenDown = reason;
      return reason;
    });
    try {
      await this.bring(build, Promise.race([this.world.required(this), down]), false);
    } catch (error) {
      if (takenDown === undefined) this.#again({}, messageOf(error));
      else if (this.state !== 'failed') this.backOff(takenDown);
    }
  }

  async giveUp(reason: string): Promise<void> {
    if (this.state === 'stopped' || this.state === 'skipped' || this.state === 'failed') return;
    const generation = this.serving;
    this.serving = undefined;
    if (generation !== undefined) await this.#stopGeneration(generation, reason);
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
    if (this.#startingOwn) void this.starting?.terminate(reason);
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
      await this.#stopGeneration(generation, reason);
      this.go('stopped', reason);
      this.world.ended(this, `plugin ${this.id} is stopped: unavailable`);
    });
  }

  async #stopGeneration(generation: Generation, reason: string): Promise<void> {
    generation.expected = true;
    try {
      if (!generation.handle.gone)
        await generation.handle.call('stop', [this.id], generation.build.manifest.deadlines.stopMs);
    } catch (error) {
      this.world.log('warn', 'plugin did not stop as asked', { plugin: this.id, error: messageOf(error) });
    }
    await this.discard(generation, reason);
  }

  /** @internal Lets a generation that has been replaced finish what it runs, then ends it. */
  async drain(old: Generation): Promise<void> {
    const { stopMs } = old.build.manifest.deadlines;
    this.draining.add(old);
    try {
      await old.handle.call('release', [this.id], stopMs);
      await old.handle.call('drained', [this.id], Number.POSITIVE_INFINITY);
      await old.handle.call('stop', [this.id], stopMs);
    } catch (error) {
      const fields = { plugin: this.id, generation: old.number, error: messageOf(error) };
      if (!old.expected) this.world.log('warn', 'old generation ended badly', fields);
    }
    await this.discard(old, 'replaced');
    this.draining.delete(old);
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
