/**
 * Looks at every worker from outside: does its loop turn, is its heap within bounds. A thread that says it is busy in a system call is
 * shown, and not ended before the time it has promised.
 */
import { beats, busy } from '../sdk/control-page.ts';
import type { WorkerHandle } from './worker-handle.ts';

const lookMs = 250;
/** Heap is asked every fourth look: 0.04 ms a worker. */
const heapEvery = 4;

export interface WatchLimits {
  /** Milliseconds without a beat before a worker is called unresponsive. */
  readonly unresponsiveMs: number;
  /** …and before it is ended; 0 = never. */
  readonly killMs: number;
  /** Heap and external memory, in MB, above which a worker is ended. */
  softMb(handle: WorkerHandle): number;
}

export interface WatchEvents {
  unresponsive(handle: WorkerHandle, silentMs: number): void;
  responsive(handle: WorkerHandle): void;
  kill(handle: WorkerHandle, reason: string): void;
}

interface Seen {
  beats: number;
  at: number;
  silent: boolean;
  killed: boolean;
}

export class Watch {
  readonly #handles: () => Iterable<WorkerHandle>;
  readonly #limits: WatchLimits;
  readonly #events: WatchEvents;
  readonly #now: () => number;
  readonly #seen = new WeakMap<WorkerHandle, Seen>();
  #timer: NodeJS.Timeout | undefined;
  #looks = 0;

  constructor(
    handles: () => Iterable<WorkerHandle>,
    limits: WatchLimits,
    events: WatchEvents,
    now: () => number = Date.now,
  ) {
    this.#handles = handles;
    this.#limits = limits;
    this.#events = events;
    this.#now = now;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), lookMs);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Whether the worker's loop has turned lately. */
  responsive(handle: WorkerHandle): boolean {
    return !(this.#seen.get(handle)?.silent ?? false);
  }

  look(): void {
    const now = this.#now();
    this.#looks += 1;
    for (const handle of this.#handles()) {
      if (handle.gone) continue;
      this.#beat(handle, now);
      if (this.#looks % heapEvery === 0) void this.#heap(handle);
    }
  }

  #beat(handle: WorkerHandle, now: number): void {
    const count = beats(handle.page);
    const seen = this.#seen.get(handle);
    // A worker that has not beaten yet is still loading; its start deadline covers that.
    if (seen === undefined || count !== seen.beats || count === 0) {
      if (seen?.silent) this.#events.responsive(handle);
      this.#seen.set(handle, { beats: count, at: now, silent: false, killed: seen?.killed ?? false });
      return;
    }
    if (busy(handle.page, now)) return;
    const silentMs = now - seen.at;
    if (!seen.silent && silentMs >= this.#limits.unresponsiveMs) {
      seen.silent = true;
      this.#events.unresponsive(handle, silentMs);
    }
    if (!seen.killed && this.#limits.killMs > 0 && silentMs >= this.#limits.killMs) {
      seen.killed = true;
      this.#events.kill(handle, `its event loop has not turned for ${silentMs} ms`);
    }
  }

  async #heap(handle: WorkerHandle): Promise<void> {
    const softMb = this.#limits.softMb(handle);
    try {
      const heap = await handle.worker.getHeapStatistics();
      const usedMb = (heap.used_heap_size + heap.external_memory) / 2 ** 20;
      const seen = this.#seen.get(handle);
      if (usedMb > softMb && seen !== undefined && !seen.killed) {
        seen.killed = true;
        this.#events.kill(handle, `it holds ${Math.round(usedMb)} MB, its limit is ${softMb} MB`);
      }
    } catch {
      // It ended while it was asked.
    }
  }
}
