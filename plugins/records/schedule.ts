/**
 * When to collect by itself, by containerd's rules and config keys (`io.containerd.gc.v1.scheduler`): once after start; then after enough
 * changes, of which one must have removed or redirected something, and else an interval after a removal, so that what an operator removes
 * last is gone from the disk soon; never so often that collecting takes more than its share of the time.
 * With both thresholds 0 nobody but a client that asks for it collects.
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

/** What a collection counts for at least in the interval, ms: with the default share of 2 % it makes 245 ms. */
const shortest = 5;
/** The interval where no share is set, ms. */
const withoutShare = 1000;

export class Schedule {
  readonly #options: ScheduleOptions;
  readonly #collect: () => Promise<unknown>;
  readonly #clock: ScheduleClock;
  /** Of the one that waits. */
  #cancel: (() => void) | undefined;
  /** Of the clock: when that one begins. */
  #due = 0;
  #collecting = false;
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
    else if ((deletionThreshold > 0 || mutationThreshold > 0) && this.#removals > 0 && this.#collections > 0)
      this.#at(this.#options.pauseThreshold > 0 ? this.#pause(shortest) : withoutShare);
  }

  /** A collection ended, whoever asked for it. */
  collected(durationMs: number): void {
    this.#collections += 1;
    this.#spentMs += durationMs;
    this.#earliest = this.#clock.now() + this.#pause(0);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  /** From one collection to the next, ms: so long that their average, or `least`, is its share of it. */
  #pause(least: number): number {
    const { pauseThreshold } = this.#options;
    if (pauseThreshold <= 0) return 0;
    const average = Math.max(this.#spentMs / this.#collections, least);
    return average / pauseThreshold - average;
  }

  /** The sooner one counts of two that wait. */
  #at(delayMs: number): void {
    if (this.#stopped || this.#collecting) return;
    const now = this.#clock.now();
    const due = Math.max(now + delayMs, this.#earliest);
    if (this.#cancel !== undefined && this.#due <= due) return;
    this.#cancel?.();
    this.#due = due;
    this.#cancel = this.#clock.after(due - now, async () => {
      this.#cancel = undefined;
      // What changes while it runs may come too late for it, and counts for the next.
      this.#mutations = 0;
      this.#removals = 0;
      this.#collecting = true;
      await this.#collect();
      this.#collecting = false;
      this.changed(0, 0);
    });
  }
}
