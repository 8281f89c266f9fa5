/** What a unit needs of the supervisor around it. */
import type { Manifest } from '../plan/index.ts';
import type { Build, Builds } from './builds.ts';
import type { Clock } from './clock.ts';
import type { Gate } from './gate.ts';
import type { Generation } from './generation.ts';
import type { Threads } from './threads.ts';
import type { Transition } from './transitions.ts';
import type { Unit } from './unit.ts';
import type { WorkerHandle } from './worker-handle.ts';

export interface UnitWorld {
  readonly threads: Threads;
  /** How many workers may load their code at once. */
  readonly loading: Gate;
  readonly clock: Clock;
  readonly builds: Builds;
  /** From suspend to flip, milliseconds: callers wait that long at most; past it the old generation goes on. */
  readonly holdMs: number;
  threadName(manifest: Manifest): string;
  config(id: string): Readonly<Record<string, unknown>>;
  transition(transition: Transition): void;
  /** The unit serves (again), with this generation. */
  serving(unit: Unit, generation: Generation): void;
  /** A generation's worker has ended, wanted or not. */
  died(unit: Unit, generation: Generation): void;
  /** The unit serves no more until it is started by hand. */
  ended(unit: Unit, reason: string): void;
  /** A generation serves: time to find out what exactly it runs, and to keep a copy. */
  staged(unit: Unit, generation: Generation): Promise<void>;
  /** Where a build can be started from: its folder while that holds it, its copy otherwise. */
  startable(build: Build): Promise<Build>;
  /** Resolves when what the unit requires serves, or with the reason why it does not. */
  required(unit: Unit): Promise<string | undefined>;
  /** What stands against this manifest in the place of the one before; undefined when nothing does. */
  admit(manifest: Manifest): string | undefined;
  /** The unit runs by this manifest from now on. */
  adopted(manifest: Manifest): void;
  reloadFailed(unit: Unit, stage: string, reason: string): void;
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void;
  /** A worker that cannot be ended: the daemon must end itself. */
  unstoppable(unit: Unit, handle: WorkerHandle): void;
}
