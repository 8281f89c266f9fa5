/**
 * Holds workers to their soft limits of memory. V8's own limit is far above them and only the last resort: reaching it ends the whole process more often than
 * not, and it does not count buffers at all. V8 answers from outside, also while the worker's code never comes to rest.
 *
 * A worker is asked as often as its growth demands, from every 20 to every 250 ms, and not at all while it sleeps. Above the limit it is asked once to collect
 * its garbage, since V8 keeps some while there is room; what is left then is what it holds. One that grows too fast to be asked is ended at once.
 */
import type { EventLoopUtilization } from 'node:perf_hooks';
import type { Clock } from './clock.ts';
import type { WorkerHandle } from './worker-handle.ts';

const slowestMs = 250;
const fastestMs = 20;
const collectMs = 1000;
/** A worker that has run for less than this since it was last asked has not grown to speak of. */
const asleepMs = 2;
/** Above soft by so much, or by half of what is left to hard, there is no time for anything. */
const overdueMb = 128;

export interface MemoryEvents {
  kill(handle: WorkerHandle, reason: string): void;
}

interface Known {
  usedMb: number;
  at: number;
  dueAt: number;
  utilization: EventLoopUtilization | undefined;
  asking: boolean;
  killed: boolean;
}

export class MemoryWatch {
  readonly #handles: () => Iterable<WorkerHandle>;
  readonly #events: MemoryEvents;
  readonly #clock: Clock;
  readonly #known = new WeakMap<WorkerHandle, Known>();
  #cancel: (() => void) | undefined;
  #running = false;

  constructor(handles: () => Iterable<WorkerHandle>, events: MemoryEvents, clock: Clock) {
    this.#handles = handles;
    this.#events = events;
    this.#clock = clock;
  }

  start(): void {
    this.#running = true;
    this.#next();
  }

  stop(): void {
    this.#running = false;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Asks those that are due. Resolves when they have answered. */
  async look(): Promise<void> {
    const now = this.#clock.now();
    const asked: Promise<void>[] = [];
    for (const handle of this.#handles()) {
      if (handle.gone) continue;
      const known = this.#of(handle, now);
      if (now >= known.dueAt && !known.asking && !known.killed) asked.push(this.#ask(handle, known));
    }
    await Promise.all(asked);
  }

  #next(): void {
    if (!this.#running) return;
    this.#cancel?.();
    const now = this.#clock.now();
    let soonest = slowestMs;
    for (const handle of this.#handles()) {
      const known = this.#known.get(handle);
      if (known !== undefined && !known.asking && !known.killed) soonest = Math.min(soonest, known.dueAt - now);
    }
    this.#cancel = this.#clock.after(Math.max(fastestMs, soonest), () => {
      // One that does not answer does not keep the others waiting.
      void this.look().then(() => this.#next());
      this.#next();
    });
  }

  #of(handle: WorkerHandle, now: number): Known {
    let known = this.#known.get(handle);
    if (known === undefined) {
      known = { usedMb: 0, at: now, dueAt: now, utilization: undefined, asking: false, killed: false };
      this.#known.set(handle, known);
    }
    return known;
  }

  async #ask(handle: WorkerHandle, known: Known): Promise<void> {
    const { performance } = handle.worker;
    const utilization = performance.eventLoopUtilization();
    const before = known.utilization;
    known.utilization = utilization;
    if (before !== undefined && utilization.active - before.active < asleepMs) {
      known.dueAt = this.#clock.now() + slowestMs;
      return;
    }
    known.asking = true;
    try {
      const usedMb = await this.#used(handle);
      await this.#judge(handle, known, usedMb);
    } catch {
      // It ended while it was asked.
      known.dueAt = this.#clock.now() + slowestMs;
    } finally {
      known.asking = false;
    }
  }

  async #used(handle: WorkerHandle): Promise<number> {
    const heap = await handle.worker.getHeapStatistics();
    return (heap.used_heap_size + heap.external_memory) / 2 ** 20;
  }

  async #judge(handle: WorkerHandle, known: Known, usedMb: number): Promise<void> {
    const now = this.#clock.now();
    const { softMb, hardMb } = handle.limits;
    const perMs = Math.max(0, usedMb - known.usedMb) / Math.max(1, now - known.at);
    known.usedMb = usedMb;
    known.at = now;
    known.dueAt = now + intervalOf(usedMb, perMs, hardMb);
    if (usedMb <= softMb) return;
    const overdue = softMb + Math.min(overdueMb, (hardMb - softMb) / 2);
    if (usedMb <= overdue && usedMb + perMs * fastestMs * 2 < hardMb) {
      const left = await this.#collected(handle);
      if (left !== undefined && left <= softMb) {
        known.usedMb = left;
        return;
      }
    }
    known.killed = true;
    this.#events.kill(handle, `it holds ${Math.round(known.usedMb)} MB, its limit is ${softMb} MB`);
  }

  /** What it holds after its garbage is gone; undefined when it does not come to collecting it. */
  async #collected(handle: WorkerHandle): Promise<number | undefined> {
    try {
      await handle.call('collect', [], collectMs);
      return await this.#used(handle);
    } catch (error) {
      if (handle.gone) throw error;
      return undefined;
    }
  }
}

/** Milliseconds until it must be asked again: a quarter of the time in which it could reach the hard limit. */
export function intervalOf(usedMb: number, perMs: number, hardMb: number): number {
  if (perMs <= 0) return slowestMs;
  return Math.min(slowestMs, Math.max(fastestMs, (hardMb - usedMb) / perMs / 4));
}
