/** How often a worker may come back: OTP's restart intensity, with geometric pauses. Pure; the clock and the dice are given. */

export interface RestartPolicy {
  readonly minMs: number;
  readonly maxMs: number;
  /** So many restarts… */
  readonly restarts: number;
  /** …within so many milliseconds; one more and it gives up. */
  readonly withinMs: number;
}

export class RestartBudget {
  readonly #policy: RestartPolicy;
  readonly #now: () => number;
  readonly #random: () => number;
  #recent: number[] = [];

  constructor(policy: RestartPolicy, now: () => number = Date.now, random: () => number = Math.random) {
    this.#policy = policy;
    this.#now = now;
    this.#random = random;
  }

  /** Milliseconds to wait before the next restart (0, 100, 400, 1600 by default, with up to a quarter taken off at random); undefined when the budget is spent. */
  next(): number | undefined {
    const now = this.#now();
    this.#recent = this.#recent.filter((at) => now - at < this.#policy.withinMs);
    if (this.#recent.length >= this.#policy.restarts) return undefined;
    const earlier = this.#recent.length;
    this.#recent.push(now);
    if (earlier === 0) return this.#policy.minMs;
    const pause = Math.min(this.#policy.maxMs, Math.max(100, this.#policy.minMs) * 4 ** (earlier - 1));
    return pause * (1 - this.#random() / 4);
  }
}
