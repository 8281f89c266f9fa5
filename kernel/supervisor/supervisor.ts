/**
 * Starts what the plan says, keeps it going, introduces plugins to each other, and stops it in reverse. Knows threads and manifests; what a
 * plugin is for it does not know.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { MethodShape, Routes } from '../bus/router.ts';
import type { Logger } from '../log.ts';
import type { Manifest, Plan } from '../plan/index.ts';
import { type Busy, ControlPage, pageBytes } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { DaemonInfo, Log, ServiceDefinition } from '../sdk/plugin.ts';
import type { ToKernel, WorkerInit } from '../sdk/protocol.ts';
import { planWith } from './admission.ts';
import { Builds, freshBuild } from './builds.ts';
import { Children } from './children.ts';
import { type Clock, systemClock } from './clock.ts';
import { Gate } from './gate.ts';
import { Guard } from './guard.ts';
import { Hearing } from './hearing.ts';
import type { Incident } from './incident.ts';
import { KernelPeer, kernelSlot } from './kernel-peer.ts';
import { Links } from './links.ts';
import { countBuffersAsHeap } from './collector.ts';
import { refuseHeapFlag } from './heap-flag.ts';
import { absence, withRequirements } from './order.ts';
import { Parties } from './parties.ts';
import { Handover, type ReloadOptions, type ReloadOutcome, reloadTogether } from './reload.ts';
import { regroup } from './regroup.ts';
import { routesOf } from './routes.ts';
import { Staging } from './staging.ts';
import { Threads, type WorkerBase } from './threads.ts';
import type { Transition } from './transitions.ts';
import { type Generation, Unit } from './unit.ts';
import type { UnitWorld } from './unit-world.ts';
import { type MakeWorker, makeWorker, type WorkerHandle } from './worker-handle.ts';

const defaultHoldMs = 1000;
const defaultStallMs = 4000;
/** A log that is not read may hold the kernel up for so long before the workers take it for dead. */
const logMs = 60_000;

export interface SupervisorOptions {
  readonly plan: Plan;
  /** Plugin id → its validated config. */
  readonly configs: ReadonlyMap<string, Record<string, unknown>>;
  /** Plugin id → name of its worker. */
  readonly threads: ReadonlyMap<string, string>;
  /** Plugins that the front waits for beside the required ones. */
  readonly first: readonly string[];
  /** The front's manifest and config: a plugin of the kernel's own, started last. */
  readonly front: { readonly manifest: Manifest; readonly config: Record<string, unknown> };
  readonly daemon: DaemonInfo;
  readonly timeouts: Readonly<Record<string, number>>;
  /** `[stream_processors]` of the config, for the plugin that unpacks. */
  readonly streamProcessors?: WorkerInit['streamProcessors'];
  /** Where plugins' threads are, when the kernel's own is elsewhere. */
  readonly niceness?: number;
  readonly unresponsiveMs: number;
  readonly killMs: number;
  readonly logger: Logger;
  /** What the daemon cannot go on after; it must end itself at once, by a signal. */
  readonly fatal: (reason: string) => void;
  /** A plugin that the daemon cannot do without is not coming back: stop in order, and exit 1. Default: `fatal`. */
  readonly giveUp?: (reason: string) => void;
  /** Milliseconds that calls may be held while a generation hands over to the next, which is dropped beyond it. Default 1000. */
  readonly holdMs?: number;
  /** Milliseconds without a turn of the kernel's own loop after which a worker ends the daemon; 0: never. Default 4000. */
  readonly stallMs?: number;
  readonly clock?: Clock;
  readonly makeWorker?: MakeWorker;
}

export class Supervisor {
  #options: SupervisorOptions;
  readonly #units = new Map<string, Unit>();
  readonly #front: Unit;
  readonly #threads: Threads;
  readonly #links = new Links();
  readonly #parties = new Parties(this.#links);
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
  #peer: KernelPeer | undefined;
  #routes: Routes = {};
  readonly #open = Promise.withResolvers<void>();
  readonly #settled = Promise.withResolvers<void>();
  #opened = false;
  #stopping = false;

  /** @throws Failure FailedPrecondition when Node was started with a heap limit that would undo everybody's */
  constructor(options: SupervisorOptions) {
    refuseHeapFlag();
    countBuffersAsHeap();
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#children = new Children(this.#clock);
    this.#builds = new Builds(options.daemon.state);
    this.#staging = new Staging(this.#builds, this.#settled.promise, (message, fields) =>
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
    this.#routes = this.#currentRoutes();
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
    this.#peer = new KernelPeer(log, definition, service);
    this.#links.serving(kernelSlot, this.#peer, 1);
    this.#routes = this.#currentRoutes();
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
      this.#links.ended(id, `plugin ${id} is not in the plan any more: unavailable`);
    }
    regroup(this.units, (unit) => this.#threadName(unit.manifest), this.#clock);
    this.#tellRoutes();
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

  /**
   * Starts everything, each as soon as what it depends on serves. The front opens its sockets when the required plugins and those that `first`
   * names are up: calls to the others wait for them. Resolves when all have settled; throws when a required plugin does not start.
   */
  async boot(): Promise<void> {
    this.#stopBeat = this.#page.beat();
    this.#guard.start();
    const { plan, first } = this.#options;
    const early = withRequirements(plan, [...plan.required, ...first]);
    const booted = new Map<string, Promise<void>>();
    const start = (id: string) => booted.set(id, this.#bootOne(this.#units.get(id)!, booted));
    for (const id of plan.order) if (early.has(id)) start(id);
    const open = Promise.all(booted.values()).then(() => this.#missing());
    const front = this.#front.start(open);
    await front;
    const missing = await open;
    if (missing !== undefined) throw new Failure('FailedPrecondition', missing);
    if (this.#front.state !== 'ready') throw new Failure('Unavailable', this.#front.reason);
    this.#opened = true;
    this.#open.resolve();
    // Now, and not before: on few processors they would take theirs from what somebody waits for.
    for (const id of plan.order) if (!early.has(id)) start(id);
    await Promise.all(booted.values());
    this.#settled.resolve();
  }

  /** The sockets are open. */
  get opened(): Promise<void> {
    return this.#open.promise;
  }

  /** Every plugin has come up, or has not. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  #missing(): string | undefined {
    const missing = [...this.#options.plan.required].find((id) => this.#units.get(id)?.state !== 'ready');
    if (missing === undefined) return undefined;
    const { reason, state } = this.#units.get(missing)!;
    return `load required plugin ${missing}: ${reason || state}`;
  }

  async #bootOne(unit: Unit, booted: ReadonlyMap<string, Promise<void>>): Promise<void> {
    const dependencies = this.#options.plan.dependencies.get(unit.id) ?? [];
    const required = Promise.all(dependencies.map((dependency) => booted.get(dependency.on))).then(() =>
      absence(this.#requirements(unit).find(({ state }) => state !== 'ready')),
    );
    await unit.start(required);
  }

  #requirements(unit: Unit): Unit[] {
    const dependencies = this.#options.plan.dependencies.get(unit.id) ?? [];
    return dependencies.flatMap(({ kind, on }) => (kind === 'requires' ? (this.#units.get(on) ?? []) : []));
  }

  /** Of one that is started anew: what it requires may be on its way as well. */
  async #required(unit: Unit): Promise<string | undefined> {
    for (;;) {
      const missing = this.#requirements(unit).filter(({ state }) => state !== 'ready');
      if (missing.length === 0) return undefined;
      const lost = missing.find(({ state }) => state === 'failed' || state === 'stopped' || state === 'skipped');
      if (lost !== undefined) return absence(lost);
      await new Promise<void>((resolve) => {
        const off = this.onTransition(() => {
          off();
          resolve();
        });
      });
    }
  }

  /** Stops everything, front first, each before what it depends on, with a deadline each. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#guard.stop();
    await this.#front.stop('the daemon stops');
    const stopped = new Map<string, Promise<void>>();
    for (const id of [...this.#options.plan.order].reverse()) {
      const dependants = [...this.#options.plan.dependencies]
        .filter(([, dependencies]) => dependencies.some((each) => each.on === id))
        .map(([dependant]) => stopped.get(dependant));
      stopped.set(
        id,
        Promise.all(dependants).then(() => this.#units.get(id)!.stop('the daemon stops')),
      );
    }
    await Promise.all(stopped.values());
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
      serving: (unit, generation) => this.#serving(unit, generation),
      died: (unit, generation) => this.#links.died(unit.id, generation.number),
      ended: (unit, reason) => this.#ended(unit, reason),
      staged: (unit, generation) => this.#staging.staged(unit, generation),
      startable: (build) => this.#staging.startable(build),
      required: (unit) => this.#required(unit),
      admit: (manifest) => {
        const next = this.#planWith(manifest);
        return 'problem' in next ? next.problem : undefined;
      },
      adopted: (manifest) => {
        const next = this.#planWith(manifest);
        if ('plan' in next) this.#options = { ...this.#options, plan: next.plan };
        this.#tellRoutes();
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
    return planWith(this.#options.plan, manifest, { [kernelContract]: '1.0.0' });
  }

  #make(...[init, limits, onMessage]: Parameters<MakeWorker>): WorkerHandle {
    const handle = (this.#options.makeWorker ?? makeWorker)(init, limits, onMessage);
    void handle.exited.then(() => {
      this.#parties.left(handle);
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
      routes: this.#routes,
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
    // What asks for a link meanwhile waits for the next generation.
    if (to !== 'ready') this.#links.interrupted(slot);
    this.#log('debug', 'plugin', { id: slot, generation, from, to, ...(reason === '' ? {} : { reason }) });
    for (const listener of [...this.#listeners]) listener(transition);
  }

  #witness(incident: Incident): void {
    for (const witness of [...this.#witnesses]) witness(incident);
  }

  #serving(unit: Unit, generation: Generation): void {
    this.#tellRoutes();
    this.#links.serving(unit.id, this.#parties.of(unit.id, generation.handle), generation.number);
  }

  #tellRoutes(): void {
    this.#routes = this.#currentRoutes();
    for (const handle of this.#threads.all) handle.send({ t: 'routes', routes: this.#routes });
  }

  #ended(unit: Unit, reason: string): void {
    this.#links.ended(unit.id, reason);
    if (unit.state !== 'failed') return;
    this.#log('error', 'plugin failed', { id: unit.id, reason: unit.reason });
    const required = this.#options.plan.required.has(unit.id) || unit === this.#front;
    if (!required || this.#stopping || !this.#opened) return;
    (this.#options.giveUp ?? this.#options.fatal)(`required plugin ${unit.id} has failed: ${unit.reason}`);
  }

  #heard(message: ToKernel, from: WorkerHandle): void {
    switch (message.t) {
      case 'introduce':
        this.#links.introduce(this.#parties.of(message.id, from), message.slot);
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

  #currentRoutes(): Routes {
    const extra: Routes =
      this.#peer === undefined
        ? {}
        : {
            [kernelContract]: [
              { slot: kernelSlot, name: '', public: true, methods: {}, shapes: this.#peer.dispatcher.methods() },
            ],
          };
    return routesOf(
      this.#options.plan,
      (id): readonly MethodShape[] => this.#units.get(id)?.serving?.shapes ?? [],
      extra,
    );
  }
}

const kernelContract = 'troupe.kernel.v1.Kernel';
