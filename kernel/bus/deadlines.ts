/**
 * One timer for all deadlines of a thread. A setTimeout per call costs 0.33 µs and a heap entry; a call that is answered in time costs
 * two writes to an array here. Deadlines are met to within {@link tickMs}, late rather than early.
 */
const tickMs = 10;

export interface Expiring {
  /** Called once when the deadline has passed. */
  expire(): void;
  /** Its bucket, -1 while it is in none, and where it stands there. Nobody but {@link Deadlines} writes them. */
  due: number;
  place: number;
}

export class Deadlines {
  readonly #buckets = new Map<number, Expiring[]>();
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #count = 0;
  #last: number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#last = Math.floor(now() / tickMs);
  }

  get size(): number {
    return this.#count;
  }

  /** `deadline` in ms since the epoch; one in the past expires at the next tick. */
  add(entry: Expiring, deadline: number): void {
    const tick = Math.max(Math.ceil(deadline / tickMs), this.#last + 1);
    let bucket = this.#buckets.get(tick);
    if (bucket === undefined) {
      bucket = [];
      this.#buckets.set(tick, bucket);
    }
    entry.due = tick;
    entry.place = bucket.length;
    bucket.push(entry);
    this.#count += 1;
    if (this.#timer === undefined) {
      this.#last = Math.floor(this.#now() / tickMs);
      this.#timer = setInterval(() => this.sweep(), tickMs);
      this.#timer.unref();
    }
  }

  /** Nothing happens when it is not there. */
  delete(entry: Expiring): void {
    const bucket = this.#buckets.get(entry.due);
    entry.due = -1;
    if (bucket === undefined) return;
    // The last of the bucket takes its place.
    const last = bucket.pop()!;
    if (last !== entry) {
      bucket[entry.place] = last;
      last.place = entry.place;
    }
    this.#count -= 1;
  }

  /** Expires what is due. Public for tests with a clock of their own. */
  sweep(): void {
    const now = Math.floor(this.#now() / tickMs);
    // After a jump of the wall clock or a long stall walking tick by tick could take long; the buckets that exist are few.
    const due =
      now - this.#last > 1000 ? [...this.#buckets.keys()].filter((tick) => tick <= now) : range(this.#last + 1, now);
    this.#last = now;
    for (const tick of due) {
      const bucket = this.#buckets.get(tick);
      if (bucket === undefined) continue;
      this.#buckets.delete(tick);
      this.#count -= bucket.length;
      for (const entry of bucket) entry.expire();
    }
    if (this.#count === 0 && this.#timer !== undefined) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      this.#buckets.clear();
    }
  }
}

function range(from: number, to: number): number[] {
  const ticks: number[] = [];
  for (let tick = from; tick <= to; tick++) ticks.push(tick);
  return ticks;
}
