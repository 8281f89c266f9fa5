/** The order in which plugins come up and go down: each as soon as what it depends on serves, and each before what it depends on has gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Plan } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import { absence, withRequirements } from './order.ts';
import type { Unit } from './unit.ts';

export interface BootWorld {
  plan(): Plan;
  unit(id: string): Unit | undefined;
  /** Is started last and stopped first, and in no plan. */
  front(): Unit;
  /** Hears of every change of a unit's state; returns what ends that. */
  onTransition(listener: () => void): () => void;
}

/** From open sockets to the start of what nobody has asked for: about what a first answer takes. */
const graceMs = 100;

export class Boot {
  readonly #world: BootWorld;
  readonly #open = Promise.withResolvers<void>();
  readonly #settled = Promise.withResolvers<void>();
  #isOpen = false;
  #isDown = false;
  readonly #wanted = Promise.withResolvers<void>();

  constructor(world: BootWorld) {
    this.#world = world;
  }

  /** The sockets are open. */
  get opened(): Promise<void> {
    return this.#open.promise;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Every plugin has come up, or has not. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /**
   * Starts everything. The front opens its sockets when the required plugins and those that `first` names are up: calls to the others wait for them. Resolves when
   * all have settled. @throws Failure when a required plugin or the front does not start
   */
  async up(first: readonly string[]): Promise<void> {
    const plan = this.#world.plan();
    const early = withRequirements(plan, [...plan.required, ...first]);
    const booted = new Map<string, Promise<void>>();
    const start = (id: string) => booted.set(id, this.#bootOne(this.#world.unit(id)!, booted));
    for (const id of plan.order) if (early.has(id)) start(id);
    const open = Promise.all(booted.values()).then(() => this.#missing());
    const front = this.#world.front();
    await front.start(open);
    const missing = await open;
    if (missing !== undefined) throw new Failure('FailedPrecondition', missing);
    if (front.state !== 'ready') throw new Failure('Unavailable', front.reason);
    this.#isOpen = true;
    this.#open.resolve();
    // Now, and not before: on few processors they would take theirs from what somebody waits for, the first answer too.
    if (early.size > 0) await Promise.race([sleep(graceMs), this.#wanted.promise]);
    if (!this.#isDown) for (const id of plan.order) if (!early.has(id)) start(id);
    await Promise.all(booted.values());
    this.#settled.resolve();
  }

  /** Somebody waits for one that has not been started yet. */
  hasten(): void {
    this.#wanted.resolve();
  }

  /** Stops everything, with a deadline each. */
  async down(reason: string): Promise<void> {
    this.#isDown = true;
    await this.#world.front().stop(reason);
    const { order, dependencies } = this.#world.plan();
    const stopped = new Map<string, Promise<void>>();
    for (const id of order.toReversed()) {
      const dependants = [...dependencies]
        .filter(([, those]) => those.some((each) => each.on === id))
        .map(([dependant]) => stopped.get(dependant));
      stopped.set(
        id,
        Promise.all(dependants).then(() => this.#world.unit(id)!.stop(reason)),
      );
    }
    await Promise.all(stopped.values());
  }

  /** Of one that is started anew: what it requires may be on its way as well. Resolves when that serves, or with the reason why it does not. */
  async required(unit: Unit): Promise<string | undefined> {
    for (;;) {
      const missing = this.#requirements(unit).filter(({ state }) => state !== 'ready');
      if (missing.length === 0) return undefined;
      const lost = missing.find(({ state }) => state === 'failed' || state === 'stopped' || state === 'skipped');
      if (lost !== undefined) return absence(lost);
      await new Promise<void>((resolve) => {
        const off = this.#world.onTransition(() => {
          off();
          resolve();
        });
      });
    }
  }

  async #bootOne(unit: Unit, booted: ReadonlyMap<string, Promise<void>>): Promise<void> {
    const dependencies = this.#world.plan().dependencies.get(unit.id) ?? [];
    const required = Promise.all(dependencies.map((dependency) => booted.get(dependency.on))).then(() =>
      absence(this.#requirements(unit).find(({ state }) => state !== 'ready')),
    );
    await unit.start(required);
  }

  #requirements(unit: Unit): Unit[] {
    const dependencies = this.#world.plan().dependencies.get(unit.id) ?? [];
    return dependencies.flatMap(({ kind, on }) => (kind === 'requires' ? (this.#world.unit(on) ?? []) : []));
  }

  #missing(): string | undefined {
    const missing = [...this.#world.plan().required].find((id) => this.#world.unit(id)?.state !== 'ready');
    if (missing === undefined) return undefined;
    const { reason, state } = this.#world.unit(missing)!;
    return `load required plugin ${missing}: ${reason || state}`;
  }
}
