/**
 * Looks at every worker from outside: does its loop turn, and are calls taken that have come. Both are read from memory that the worker writes (its control
 * page): no message, nothing that a stuck thread would have to answer. A thread that says it is busy in a system call is shown, and not ended before the time
 * it has promised.
 */
import { type Busy, look } from '../sdk/control-page.ts';
import type { Clock } from './clock.ts';
import type { WorkerHandle } from './worker-handle.ts';

const lookMs = 250;

export interface WatchLimits {
  /** Milliseconds without a sign of life before a worker is called unresponsive. */
  readonly unresponsiveMs: number;
  /** …and before it is ended; 0 = never. */
  readonly killMs: number;
}

export interface WatchEvents {
  /** `why` says which sign is missing. */
  unresponsive(handle: WorkerHandle, silentMs: number, why: string): void;
  responsive(handle: WorkerHandle, silentMs: number): void;
  kill(handle: WorkerHandle, reason: string): void;
}

const signs = {
  turning: 'its event loop does not turn',
  taking: 'its event loop turns, and calls that have come are not begun',
} as const;
type Sign = keyof typeof signs;

interface Seen {
  readonly counts: Record<Sign, number>;
  /** When each was last as it should be. */
  readonly wellAt: Record<Sign, number>;
  silent: Sign | undefined;
  killed: boolean;
}

export class Watch {
  readonly #handles: () => Iterable<WorkerHandle>;
  readonly #limits: WatchLimits;
  readonly #events: WatchEvents;
  readonly #clock: Clock;
  readonly #seen = new WeakMap<WorkerHandle, Seen>();
  #cancel: (() => void) | undefined;
  #lookedAt: number;

  constructor(handles: () => Iterable<WorkerHandle>, limits: WatchLimits, events: WatchEvents, clock: Clock) {
    this.#handles = handles;
    this.#limits = limits;
    this.#events = events;
    this.#clock = clock;
    this.#lookedAt = clock.now();
  }

  start(): void {
    this.#cancel = this.#clock.after(lookMs, () => {
      this.look();
      this.start();
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Whether the worker has shown signs of life lately. */
  responsive(handle: WorkerHandle): boolean {
    return this.#seen.get(handle)?.silent === undefined;
  }

  /** What the worker says that it is inside of. */
  busy(handle: WorkerHandle): Busy | undefined {
    return handle.gone ? undefined : look(handle.page).busy;
  }

  /** One look at all of them. */
  look(): void {
    const now = this.#clock.now();
    // What this thread was late by, the machine was too busy for, or asleep: the workers cannot be blamed for that time.
    const late = Math.max(0, now - this.#lookedAt - 2 * lookMs);
    this.#lookedAt = now;
    for (const handle of this.#handles()) if (!handle.gone) this.#lookAt(handle, now, late);
  }

  #lookAt(handle: WorkerHandle, now: number, late: number): void {
    const { beats, taken, waiting, busy } = look(handle.page);
    let seen = this.#seen.get(handle);
    if (seen === undefined) {
      seen = {
        counts: { turning: beats, taking: taken },
        wellAt: { turning: now, taking: now },
        silent: undefined,
        killed: false,
      };
      this.#seen.set(handle, seen);
    }
    for (const sign of ['turning', 'taking'] as const) seen.wellAt[sign] = Math.min(now, seen.wellAt[sign] + late);
    // One that has not beaten yet is still loading: its start deadline covers that. One that is busy has said for how long.
    const excused = beats === 0 || (busy !== undefined && now < busy.until);
    const turning = beats !== seen.counts.turning;
    if (excused || turning) seen.wellAt.turning = now;
    // A loop that does not turn cannot take anything, and what it last said of what waits is old.
    if (excused || !turning || waiting === 0 || taken !== seen.counts.taking) seen.wellAt.taking = now;
    seen.counts.turning = beats;
    seen.counts.taking = taken;
    this.#judge(handle, seen, now);
  }

  #judge(handle: WorkerHandle, seen: Seen, now: number): void {
    const sign: Sign = seen.wellAt.turning <= seen.wellAt.taking ? 'turning' : 'taking';
    const silentMs = now - seen.wellAt[sign];
    if (silentMs < this.#limits.unresponsiveMs) {
      if (seen.silent !== undefined) {
        seen.silent = undefined;
        this.#events.responsive(handle, silentMs);
      }
      return;
    }
    if (seen.silent === undefined) {
      seen.silent = sign;
      this.#events.unresponsive(handle, silentMs, signs[sign]);
    }
    if (!seen.killed && this.#limits.killMs > 0 && silentMs >= this.#limits.killMs) {
      seen.killed = true;
      this.#events.kill(handle, `${signs[sign]}, for ${silentMs} ms`);
    }
  }
}
