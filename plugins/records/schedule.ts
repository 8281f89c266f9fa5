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

export class Schedule {
  readonly #options: ScheduleOptions;
  readonly #collect: () => Promise<{ durationMs: number }>;
  #timer: NodeJS.Timeout | undefined;
  #mutations = 0;
  #removals = 0;
  #collections = 0;
  #spentMs = 0;
  /** performance.now() before which none may begin. */
  #earliest = 0;
  #stopped = false;

  /** @param collect must not reject. */
  constructor(options: ScheduleOptions, collect: () => Promise<{ durationMs: number }>) {
    this.#options = { ...options, pauseThreshold: Math.min(options.pauseThreshold, 0.5) };
    this.#collect = collect;
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
    this.#mutations = 0;
    this.#removals = 0;
    this.#collections += 1;
    this.#spentMs += durationMs;
    const average = this.#spentMs / this.#collections;
    const { pauseThreshold } = this.#options;
    if (pauseThreshold > 0) this.#earliest = performance.now() + average / pauseThreshold - average;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #at(delayMs: number): void {
    if (this.#stopped || this.#timer !== undefined) return;
    const delay = Math.max(delayMs, this.#earliest - performance.now(), 0);
    this.#timer = setTimeout(async () => {
      await this.#collect();
      this.#timer = undefined;
    }, delay);
    // A daemon that wants to end does not wait for it.
    this.#timer.unref();
  }
}
