/**
 * The plugins of the plan and all that runs them, held together: what each does (unit.ts), in which order they come and go (boot.ts), who serves what
 * (directory.ts), and who looks after their workers (guard.ts). Knows threads and manifests; what a plugin is for it does not know.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { kernelContracts, type Manifest, type Plan } from '../plan/index.ts';
import { type Busy, ControlPage, pageBytes } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { Log, ServiceDefinition } from '../sdk/plugin.ts';
import type { ToKernel } from '../sdk/protocol.ts';
import { planWith } from './admission.ts';
import { Boot } from './boot.ts';
import { Builds, freshBuild } from './builds.ts';
import { Children } from './children.ts';
import { type Clock, systemClock } from './clock.ts';
import { setFlags } from '../flags.ts';
import { Directory } from './directory.ts';
import { Gate } from './gate.ts';
import { Guard } from './guard.ts';
import { Hearing } from './hearing.ts';
import { refuseHeapFlag } from './heap-flag.ts';
import type { Incident } from './incident.ts';
import { defaultHoldMs, defaultStallMs, type SupervisorOptions } from './options.ts';
import { Handover, type ReloadOptions, type ReloadOutcome, reloadTogether } from './reload.ts';
import { regroup } from './regroup.ts';
import { Staging } from './staging.ts';
import { Threads, type WorkerBase } from './threads.ts';
import type { Transition } from './transitions.ts';
import { Unit } from './unit.ts';
import type { UnitWorld } from './unit-world.ts';
import { type MakeWorker, makeWorker, type WorkerHandle } from './worker-handle.ts';

/** A log that is not read may hold the kernel up for so long before the workers take it for dead. */
const logMs = 60_000;

export class Supervisor {
  #options: SupervisorOptions;
  readonly #units = new Map<string, Unit>();
  readonly #front: Unit;
  readonly #threads: Threads;
  readonly #boot: Boot;
  readonly #directory: Directory;
  readonly #loading = new Gate(availableParallelism() + 1);
  readonly #clock: Clock;
  readonly #builds: Builds;
  readonly #staging: Staging;
  readonly #children: Children;
  readonly #guard: Guard;
  readonly #world: UnitWorld;
  readonly #pageMemory = new SharedArrayBuffer(pageBytes);
  readonly #page = new ControlPage(this.#pageMemory);
  readonly #listeners = new Set<(transition: Transition) => void>();
  readonly #witnesses = new Set<(incident: Incident) => void>();
  #stopBeat = () => {};
  #stopping = false;

  /** @throws Failure FailedPrecondition when Node was started with a heap limit that would undo everybody's */
  constructor(options: SupervisorOptions) {
    refuseHeapFlag();
    setFlags();
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#children = new Children(this.#clock);
    this.#builds = new Builds(options.daemon.state);
    this.#boot = new Boot({
      plan: () => this.plan,
      unit: (id) => this.#units.get(id),
      front: () => this.#front,
      onTransition: (listener) => this.onTransition(listener),
    });
    this.#directory = new Directory({
      plan: () => this.plan,
      serving: (id) => this.#units.get(id)?.serving,
      handles: () => this.#threads.all,
    });
    this.#staging = new Staging(this.#builds, this.#boot.settled, (message, fields) =>
      this.#log('warn', message, fields),
    );
    const hearing = new Hearing(
      (message, from) => this.#heard(message, from),
      (from, reason) => void this.#guard.end(from, reason),
    );
    this.#threads = new Threads(
      () => this.#base(),
      (message, from) => hearing.heard(message, from),
      (...args) => this.#make(...args),
    );
    this.#world = this.#makeWorld();
    for (const id of options.plan.order) this.#add(options.plan.manifests.get(id)!);
    this.#front = this.#add(options.front.manifest);
    regroup(this.units, (unit) => this.#threadName(unit.manifest), this.#clock);
    this.#guard = new Guard(
      () => this.#threads.all,
      options,
      {
        log: (...line) => this.#log(...line),
        witness: (incident) => this.#witness(incident),
        fatal: options.fatal,
      },
      this.#clock,
    );
    this.#directory.refresh();
  }

  #add(manifest: Manifest): Unit {
    const unit = new Unit(manifest, this.#world);
    this.#units.set(unit.id, unit);
    return unit;
  }

  /** The kernel's own service, before the boot. */
  serveKernel(definition: ServiceDefinition, service: object): void {
    const at = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: Record<string, unknown>) =>
      this.#log(level, message, fields);
    const log: Log = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
    this.#directory.serveKernel(log, definition, service);
  }

  get units(): readonly Unit[] {
    return [...this.#units.values()];
  }

  /** @throws Failure NotFound */
  unit(id: string): Unit {
    const unit = this.#units.get(id) ?? this.units.find((each) => each.manifest.aliases.includes(id));
    if (unit === undefined) throw new Failure('NotFound', `plugin "${id}": not found`);
    return unit;
  }

  get plan(): Plan {
    return this.#options.plan;
  }

  /**
   * Takes a new plan over, for a config that has changed: units are made for plugins that are new, and forgotten for those that are gone. Nothing is started,
   * stopped or reloaded by it: stop what goes before, start, {@link Unit.configure} or {@link Unit.reload} the rest afterwards.
   */
  replan(next: Pick<SupervisorOptions, 'plan' | 'configs' | 'threads'>): void {
    this.#options = { ...this.#options, ...next };
    for (const id of next.plan.order) {
      const manifest = next.plan.manifests.get(id)!;
      const unit = this.#units.get(id) ?? this.#add(manifest);
      // One that runs is what it was started as until it is reloaded.
      if (unit.serving === undefined && unit.starting === undefined)
        unit.build = freshBuild(manifest, this.#world.config(id));
    }
    for (const id of [...this.#units.keys()]) {
      if (id === this.#front.id || next.plan.manifests.has(id)) continue;
      this.#units.delete(id);
      this.#directory.ended(id, `plugin ${id} is not in the plan any more: unavailable`);
    }
    regroup(this.units, (unit) => this.#threadName(unit.manifest), this.#clock);
    this.#directory.publish();
  }

  /** All of them get a next generation, or none does. In the order of starting, outcomes as well. What one does in `activate` must not call another of them. */
  async reloadTogether(ids: readonly string[], options: ReloadOptions = {}): Promise<ReloadOutcome[]> {
    const wanted = new Set(ids.map((id) => this.unit(id)));
    const units = this.units.filter((unit) => wanted.has(unit));
    const held = (rest: readonly Unit[]): Promise<ReloadOutcome[]> =>
      rest.length === 0
        ? reloadTogether(units.map((unit) => new Handover(unit, options)))
        : rest[0]!.exclusively(() => held(rest.slice(1)));
    return held(units);
  }

  /** All that the daemon cannot do without is up, and the front takes calls. */
  get serving(): boolean {
    return (
      this.#front.state === 'ready' && [...this.plan.required].every((id) => this.#units.get(id)?.state === 'ready')
    );
  }

  responsive(handle: WorkerHandle): boolean {
    return this.#guard.responsive(handle);
  }

  /** What the worker says that it is inside of, for how long already and until when: shown, and not taken for hanging. */
  busy(handle: WorkerHandle): Busy | undefined {
    return this.#guard.busy(handle);
  }

  onTransition(listener: (transition: Transition) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  onIncident(witness: (incident: Incident) => void): () => void {
    this.#witnesses.add(witness);
    return () => this.#witnesses.delete(witness);
  }

  /** Starts everything, as {@link Boot.up} says. @throws Failure when a required plugin does not start */
  async boot(): Promise<void> {
    this.#stopBeat = this.#page.beat();
    this.#guard.start();
    await this.#boot.up(this.#options.first);
  }

  /** The sockets are open. */
  get opened(): Promise<void> {
    return this.#boot.opened;
  }

  /** Every plugin has come up, or has not. */
  get settled(): Promise<void> {
    return this.#boot.settled;
  }

  /** Stops everything, front first, each before what it depends on, with a deadline each. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#guard.stop();
    await this.#boot.down('the daemon stops');
    // What shares a thread stops one by one; the thread goes when all have.
    await Promise.all([...this.#threads.all].map((handle) => handle.terminate('the daemon stops')));
    this.#children.stop();
    this.#stopBeat();
    await this.#staging.stop();
  }

  #makeWorld(): UnitWorld {
    const { front } = this.#options;
    return {
      threads: this.#threads,
      loading: this.#loading,
      clock: this.#clock,
      builds: this.#builds,
      holdMs: this.#options.holdMs ?? defaultHoldMs,
      threadName: (manifest) => this.#threadName(manifest),
      config: (id) => (id === front.manifest.id ? front.config : (this.#options.configs.get(id) ?? {})),
      transition: (transition) => this.#transition(transition),
      serving: (unit, generation) => this.#directory.serving(unit.id, generation),
      died: (unit, generation) => this.#directory.died(unit.id, generation),
      ended: (unit, reason) => this.#ended(unit, reason),
      staged: (unit, generation) => this.#staging.staged(unit, generation),
      startable: (build) => this.#staging.startable(build),
      required: (unit) => this.#boot.required(unit),
      admit: (manifest) => {
        const next = this.#planWith(manifest);
        return 'problem' in next ? next.problem : undefined;
      },
      adopted: (manifest) => {
        const next = this.#planWith(manifest);
        if ('plan' in next) this.#options = { ...this.#options, plan: next.plan };
        this.#directory.publish();
      },
      reloadFailed: (unit, stage, reason) => {
        this.#log('warn', 'reload failed', { plugin: unit.id, stage, reason });
        this.#witness({ t: 'reload_failed', plugin: unit.id, stage, reason });
      },
      log: (level, message, fields) => this.#log(level, message, fields),
      unstoppable: (unit, handle) =>
        this.#options.fatal(`worker ${handle.thread} of plugin ${unit.id} cannot be ended`),
    };
  }

  #planWith(manifest: Manifest): ReturnType<typeof planWith> {
    if (manifest.id === this.#front.id) return { plan: this.#options.plan };
    return planWith(this.#options.plan, manifest, kernelContracts);
  }

  #make(...[init, limits, onMessage]: Parameters<MakeWorker>): WorkerHandle {
    const handle = (this.#options.makeWorker ?? makeWorker)(init, limits, onMessage);
    void handle.exited.then(() => {
      this.#directory.left(handle);
      this.#children.orphaned(handle);
    });
    return handle;
  }

  #threadName(manifest: Manifest): string {
    return this.#options.threads.get(manifest.id) ?? manifest.id;
  }

  #base(): WorkerBase {
    const { plan, daemon, timeouts, stallMs, niceness, streamProcessors = {} } = this.#options;
    return {
      daemon,
      timeouts,
      streamProcessors,
      niceness,
      routes: this.#directory.routes,
      database: join(daemon.root, 'troupe.records.v1.records', 'records.db'),
      migrations: [...plan.manifests.values()]
        .filter((manifest) => manifest.records.prefix !== '')
        .map((manifest) => ({ prefix: manifest.records.prefix, dir: join(manifest.dir, 'migrations') })),
      kernelPage: this.#pageMemory,
      kernelStallMs: stallMs ?? defaultStallMs,
    };
  }

  #log(level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void {
    this.#page.busy('writing the log', logMs, () => this.#options.logger.write(level, message, fields));
  }

  #transition(transition: Transition): void {
    const { slot, generation, from, to, reason } = transition;
    if (to !== 'ready') this.#directory.interrupted(slot);
    this.#log('debug', 'plugin', { id: slot, generation, from, to, ...(reason === '' ? {} : { reason }) });
    for (const listener of [...this.#listeners]) listener(transition);
  }

  #witness(incident: Incident): void {
    for (const witness of [...this.#witnesses]) witness(incident);
  }

  #ended(unit: Unit, reason: string): void {
    this.#directory.ended(unit.id, reason);
    if (unit.state !== 'failed') return;
    this.#log('error', 'plugin failed', { id: unit.id, reason: unit.reason });
    const required = this.#options.plan.required.has(unit.id) || unit === this.#front;
    if (!required || this.#stopping || !this.#boot.isOpen) return;
    (this.#options.giveUp ?? this.#options.fatal)(`required plugin ${unit.id} has failed: ${unit.reason}`);
  }

  #heard(message: ToKernel, from: WorkerHandle): void {
    switch (message.t) {
      case 'introduce':
        if (this.#units.get(message.slot)?.state === 'declared') this.#boot.hasten();
        this.#directory.introduce(message.id, from, message.slot, message.links);
        return;
      case 'log':
        this.#log(message.level, message.message, { plugin: message.id, ...message.fields });
        return;
      case 'child':
        this.#children.heard(from, message.pid, message.running);
        return;
      case 'fatal':
        this.#options.fatal(`plugin ${message.id}: ${message.reason}`);
    }
  }
}
