/** After a reload the new build is on probation: a crash so soon is its fault, and the build before takes its place again. */
import type { Build } from './builds.ts';
import type { Clock } from './clock.ts';

const probationMs = 30_000;

export class Probation {
  /** Digests of builds that crashed in probation, with how. */
  readonly bad = new Map<string, string>();
  readonly #clock: Clock;
  #current: { readonly until: number; readonly before: Build; readonly digest: string | undefined } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The build that takes its place when the one on probation does not last. */
  get before(): Build | undefined {
    return this.#current?.before;
  }

  begin(before: Build, digest: string | undefined): void {
    this.#current = { until: this.#clock.now() + probationMs, before, digest };
  }

  /** Whoever starts it by hand has looked at it: nothing is held against any build. */
  forgive(): void {
    this.bad.clear();
    this.#current = undefined;
  }

  /** @returns the build to go back to; undefined: there is none, or no reason to */
  crashed(reason: string): Build | undefined {
    const current = this.#current;
    this.#current = undefined;
    if (current === undefined || this.#clock.now() >= current.until) return undefined;
    if (current.digest !== undefined) this.bad.set(current.digest, reason);
    // Without a copy there is nothing else to start than what has crashed.
    return current.before.copy === undefined ? undefined : current.before;
  }
}
