/**
 * When to collect by itself, by containerd's rules and config keys (`io.containerd.gc.v1.scheduler`): once after start; then after enough
 * changes, of which one must have removed or redirected something; never so often that collecting takes more than its share of the time.
 */
export interface ScheduleOptions {
  /** Greatest share of the time that collecting may take, over 0, at most 0.5. */
  readonly pauseThreshold: number;
  /** Removals that start a collection; 0: they do not by their number alone. */
  readonly deletionThreshold: number;
  /** Changes that start a collection if at least one was a removal; 0: they do not. */
  readonly mutationThreshold: number;
  /** ms from the change that started it. */
  readonly scheduleDelayMs: number;
  /** ms from start to the first. */
  readonly startupDelayMs: number;
}

/** The clock, for tests to turn by hand. */
export interface ScheduleClock {
  /** ms, monotonic. */
  now(): number;
  /** @returns how to cancel it. */
  after(delayMs: number, work: () => void): () => void;
}

const realClock: ScheduleClock = {
  now: () => performance.now(),
  after(delayMs, work) {
    const timer = setTimeout(work, delayMs);
    // A daemon that wants to end does not wait for it.
    timer.unref();
    return () => clearTimeout(timer);
  },
};

export class Schedule {
  readonly #options: ScheduleOptions;
  readonly #collect: () => Promise<unknown>;
  readonly #clock: ScheduleClock;
  #cancel: (() => void) | undefined;
  #mutations = 0;
  #removals = 0;
  #collections = 0;
  #spentMs = 0;
  /** Of the clock, before which none may begin. */
  #earliest = 0;
  #stopped = false;

  /** @param collect must not reject. */
  constructor(options: ScheduleOptions, collect: () => Promise<unknown>, clock: ScheduleClock = realClock) {
    this.#options = { ...options, pauseThreshold: Math.min(options.pauseThreshold, 0.5) };
    this.#collect = collect;
    this.#clock = clock;
    this.#at(options.startupDelayMs);
  }

  /** Commits that were made durable, and statements among them that updated or deleted. */
  changed(mutations: number, removals: number): void {
    this.#mutations += mutations;
    this.#removals += removals;
    const { deletionThreshold, mutationThreshold, scheduleDelayMs } = this.#options;
    if (
      (deletionThreshold > 0 && this.#removals >= deletionThreshold) ||
      (mutationThreshold > 0 && this.#removals > 0 && this.#mutations >= mutationThreshold)
    )
      this.#at(scheduleDelayMs);
  }

  /** A collection ended, whoever asked for it. */
  collected(durationMs: number): void {
    this.#collections += 1;
    this.#spentMs += durationMs;
    const average = this.#spentMs / this.#collections;
    const { pauseThreshold } = this.#options;
    if (pauseThreshold > 0) this.#earliest = this.#clock.now() + average / pauseThreshold - average;
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #at(delayMs: number): void {
    if (this.#stopped || this.#cancel !== undefined) return;
    const delay = Math.max(delayMs, this.#earliest - this.#clock.now(), 0);
    this.#cancel = this.#clock.after(delay, async () => {
      // What changes while it runs may come too late for it, and counts for the next.
      this.#mutations = 0;
      this.#removals = 0;
      await this.#collect();
      this.#cancel = undefined;
      this.changed(0, 0);
    });
  }
}
