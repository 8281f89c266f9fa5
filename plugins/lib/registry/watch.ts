/**
 * Whether something comes, and fast enough. Only time spent waiting for the network counts: who reads slowly has nobody but himself to blame. A trickle is as
 * bad as nothing, since a byte a minute would hold a pull for ever.
 */
export interface Rate {
  /** Bytes a second, over `windowMs`. */
  readonly least: number;
  /** 0: no limit. */
  readonly windowMs: number;
}

export class RateWatch {
  readonly #rate: Rate;
  readonly #tooSlow: (bytes: number) => void;
  readonly #timer: NodeJS.Timeout;
  /** Of the wait that goes on; 0: none does. */
  #since = 0;
  #waited = 0;
  #bytes = 0;

  /** @param tooSlow is called once, with the bytes that came in the last window */
  constructor(rate: Rate, tooSlow: (bytes: number) => void) {
    this.#rate = rate;
    this.#tooSlow = tooSlow;
    this.#timer = setInterval(() => this.#look(), Math.max(rate.windowMs / 4, 10));
    this.#timer.unref();
  }

  waiting(): void {
    this.#since = performance.now();
  }

  came(bytes: number): void {
    if (this.#since !== 0) this.#waited += performance.now() - this.#since;
    this.#since = 0;
    this.#bytes += bytes;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const waited = this.#waited + (this.#since === 0 ? 0 : performance.now() - this.#since);
    // No window is no limit: a setting that is meant to turn it off must not refuse everything.
    if (this.#rate.windowMs <= 0 || waited < this.#rate.windowMs) return;
    if (this.#bytes < (this.#rate.least * waited) / 1000) {
      this.stop();
      this.#tooSlow(this.#bytes);
      return;
    }
    this.#waited = 0;
    this.#bytes = 0;
    if (this.#since !== 0) this.#since = performance.now();
  }
}
