/**
 * Starts what the plan says, keeps it going, introduces plugins to each other, and stops it in reverse. Knows threads and manifests; what a
 * plugin is for it does not know.
 */
import type { MethodShape, Routes } from '../bus/router.ts';
import type { Manifest, Plan } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import type { DaemonInfo, ServiceDefinition } from '../sdk/plugin.ts';
import type { ToKernel } from '../sdk/protocol.ts';
import type { Logger } from '../log.ts';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Gate } from './gate.ts';
import { KernelPeer, kernelSlot } from './kernel-peer.ts';
import { Links, type Party } from './links.ts';
import { routesOf } from './routes.ts';
import { Threads, type WorkerBase } from './threads.ts';
import type { Transition } from './transitions.ts';
import { type Generation, Unit, type UnitWorld } from './unit.ts';
import { Watch } from './watch.ts';
import type { WorkerHandle } from './worker-handle.ts';

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
  readonly unresponsiveMs: number;
  readonly killMs: number;
  readonly logger: Logger;
  /** What the daemon cannot go on after; it must end itself. */
  readonly fatal: (reason: string) => void;
}

export class Supervisor {
  #options: SupervisorOptions;
  readonly #units = new Map<string, Unit>();
  readonly #front: Unit;
  readonly #threads: Threads;
  readonly #links = new Links();
  readonly #loading = new Gate(availableParallelism() + 1);
  readonly #parties = new WeakMap<WorkerHandle, Map<string, Party>>();
  readonly #watch: Watch;
  readonly #listeners = new Set<(transition: Transition) => void>();
  readonly #children = new Map<string, Set<number>>();
  #peer: KernelPeer | undefined;
  #routes: Routes = {};
  readonly #open = Promise.withResolvers<void>();
  readonly #settled = Promise.withResolvers<void>();
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#threads = new Threads(
      () => this.#base(),
      (message, from) => this.#heard(message, from),
    );
    const world = this.#world();
    for (const id of options.plan.order) this.#add(new Unit(options.plan.manifests.get(id)!, world));
    this.#front = new Unit(options.front.manifest, world);
    this.#add(this.#front);
    this.#watch = new Watch(
      () => this.#threads.all,
      {
        unresponsiveMs: options.unresponsiveMs,
        killMs: options.killMs,
        softMb: (handle) => this.#unitsIn(handle).reduce((sum, unit) => sum + unit.manifest.limits.softMb, 0) || 512,
      },
      {
        unresponsive: (handle, silentMs) =>
          options.logger.write('warn', 'worker is unresponsive', { worker: handle.thread, silentMs }),
        responsive: (handle) => options.logger.write('info', 'worker is responsive again', { worker: handle.thread }),
        kill: (handle, reason) => void this.#kill(handle, reason),
      },
    );
    this.#routes = this.#currentRoutes();
  }

  #add(unit: Unit): void {
    this.#units.set(unit.id, unit);
    this.#threads.join(this.#threadName(unit.manifest), unit);
  }

  /** The kernel's own service, before the boot. */
  serveKernel(definition: ServiceDefinition, service: object): void {
    const log = {
      debug: (message: string, fields?: Record<string, unknown>) =>
        this.#options.logger.write('debug', message, fields),
      info: (message: string, fields?: Record<string, unknown>) => this.#options.logger.write('info', message, fields),
      warn: (message: string, fields?: Record<string, unknown>) => this.#options.logger.write('warn', message, fields),
      error: (message: string, fields?: Record<string, unknown>) =>
        this.#options.logger.write('error', message, fields),
    };
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
      if (!this.#units.has(id)) this.#add(new Unit(next.plan.manifests.get(id)!, this.#world()));
    }
    for (const id of [...this.#units.keys()]) {
      if (id !== this.#front.id && !next.plan.manifests.has(id)) this.#units.delete(id);
    }
    this.#tellRoutes();
  }

  /** All that the daemon cannot do without is up, and the front takes calls. */
  get serving(): boolean {
    return [...this.plan.required].every((id) => this.#units.get(id)?.state === 'ready');
  }

  responsive(handle: WorkerHandle): boolean {
    return this.#watch.responsive(handle);
  }

  onTransition(listener: (transition: Transition) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Starts everything, each as soon as what it depends on serves. The front opens its sockets when the required plugins and those that `first`
   * names are up: calls to the others wait for them. Resolves when all have settled; throws when a required plugin does not start.
   */
  async boot(): Promise<void> {
    this.#watch.start();
    const { plan, first } = this.#options;
    const early = this.#withRequirements([...plan.required, ...first]);
    const booted = new Map<string, Promise<void>>();
    const start = (id: string) => booted.set(id, this.#bootOne(this.#units.get(id)!, booted));
    for (const id of plan.order) if (early.has(id)) start(id);
    const open = Promise.all(booted.values()).then(() => this.#missing());
    const front = this.#front.start(open);
    for (const id of plan.order) if (!early.has(id)) start(id);
    await front;
    const missing = await open;
    if (missing !== undefined) throw new Failure('FailedPrecondition', missing);
    if (this.#front.state !== 'ready') throw new Failure('Unavailable', this.#front.reason);
    this.#open.resolve();
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

  /** These plugins, and whatever must be there before them. */
  #withRequirements(ids: readonly string[]): Set<string> {
    const found = new Set<string>();
    const add = (id: string) => {
      if (found.has(id) || !this.#units.has(id)) return;
      found.add(id);
      for (const { on } of this.#options.plan.dependencies.get(id) ?? []) add(on);
    };
    for (const id of ids) add(id);
    return found;
  }

  async #bootOne(unit: Unit, booted: ReadonlyMap<string, Promise<void>>): Promise<void> {
    const dependencies = this.#options.plan.dependencies.get(unit.id) ?? [];
    const required = Promise.all(dependencies.map((dependency) => booted.get(dependency.on))).then(() => {
      const missing = dependencies.find(
        (each) => each.kind === 'requires' && this.#units.get(each.on)?.state !== 'ready',
      );
      return missing === undefined
        ? undefined
        : `requires ${missing.on}, which is ${this.#units.get(missing.on)?.state}`;
    });
    await unit.start(required);
  }

  /** Stops everything, front first, each before what it depends on, with a deadline each. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#watch.stop();
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
  }

  #world(): UnitWorld {
    const { front, logger } = this.#options;
    return {
      threads: this.#threads,
      loading: this.#loading,
      now: Date.now,
      threadName: (manifest) => this.#threadName(manifest),
      config: (id) => (id === front.manifest.id ? front.config : (this.#options.configs.get(id) ?? {})),
      transition: (transition) => this.#transition(transition),
      serving: (unit, generation) => this.#serving(unit, generation),
      ended: (unit, reason) => this.#ended(unit, reason),
      log: (level, message, fields) => logger.write(level, message, fields),
      unstoppable: (unit) => this.#options.fatal(`the worker of ${unit.id} cannot be ended`),
    };
  }

  #threadName(manifest: Manifest): string {
    return this.#options.threads.get(manifest.id) ?? manifest.id;
  }

  #base(): WorkerBase {
    const { plan, daemon, timeouts } = this.#options;
    return {
      daemon,
      timeouts,
      routes: this.#routes,
      database: join(daemon.root, 'troupe.records.v1.records', 'records.db'),
      migrations: [...plan.manifests.values()]
        .filter((manifest) => manifest.records.prefix !== '')
        .map((manifest) => ({ prefix: manifest.records.prefix, dir: join(manifest.dir, 'migrations') })),
    };
  }

  #transition(transition: Transition): void {
    const { slot, generation, from, to, reason } = transition;
    this.#options.logger.write('debug', 'plugin', {
      id: slot,
      generation,
      from,
      to,
      ...(reason === '' ? {} : { reason }),
    });
    for (const listener of this.#listeners) listener(transition);
  }

  #serving(unit: Unit, generation: Generation): void {
    this.#tellRoutes();
    this.#links.serving(unit.id, this.#party(unit.id, generation.handle), generation.number);
  }

  #tellRoutes(): void {
    this.#routes = this.#currentRoutes();
    for (const handle of this.#threads.all) handle.send({ t: 'routes', routes: this.#routes });
  }

  #ended(unit: Unit, reason: string): void {
    this.#links.ended(unit.id, reason);
    if (unit.state !== 'failed') return;
    this.#options.logger.write('error', 'plugin failed', { id: unit.id, reason: unit.reason });
    if (this.#options.plan.required.has(unit.id) && !this.#stopping && unit.restarts > 0) {
      this.#options.fatal(`required plugin ${unit.id} has failed: ${unit.reason}`);
    }
  }

  /** A plugin in a worker, as the links know it: one object for the life of the worker. */
  #party(id: string, handle: WorkerHandle): Party {
    let parties = this.#parties.get(handle);
    if (parties === undefined) {
      parties = new Map();
      this.#parties.set(handle, parties);
    }
    let party = parties.get(id);
    if (party === undefined) {
      party = partyOf(id, handle);
      parties.set(id, party);
    }
    return party;
  }

  #heard(message: ToKernel, from: WorkerHandle): void {
    switch (message.t) {
      case 'introduce': {
        const target = this.#units.get(message.slot);
        if (target !== undefined && target.state !== 'ready') this.#links.interrupted(message.slot);
        this.#links.introduce(this.#party(message.id, from), message.slot);
        return;
      }
      case 'log':
        this.#options.logger.write(message.level, message.message, { plugin: message.id, ...message.fields });
        return;
      case 'child':
        this.#child(message.id, message.pid, message.running);
        return;
      case 'fatal':
        this.#options.fatal(`plugin ${message.id}: ${message.reason}`);
    }
  }

  #child(id: string, pid: number, running: boolean): void {
    const children = this.#children.get(id) ?? new Set();
    if (running) children.add(pid);
    else children.delete(pid);
    this.#children.set(id, children);
  }

  #unitsIn(handle: WorkerHandle): Unit[] {
    return this.units.filter((unit) => unit.serving?.handle === handle || unit.starting === handle);
  }

  async #kill(handle: WorkerHandle, reason: string): Promise<void> {
    this.#options.logger.write('error', 'worker is ended', { worker: handle.thread, reason });
    if (!(await handle.terminate(reason))) this.#options.fatal(`worker ${handle.thread} cannot be ended: ${reason}`);
  }

  #currentRoutes(): Routes {
    const extra: Routes =
      this.#peer === undefined
        ? {}
        : {
            'troupe.kernel.v1.Kernel': [
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

function partyOf(id: string, handle: WorkerHandle): Party {
  return {
    id,
    get gone() {
      return handle.gone;
    },
    accept: (from, port, page) => handle.send({ t: 'accept', id, from, port, page }, [port]),
    relink: (slot, generation, port, page) => handle.send({ t: 'relink', id, slot, generation, port, page }, [port]),
    down: (slot, reason) => handle.send({ t: 'down', id, slot, reason }),
  };
}
