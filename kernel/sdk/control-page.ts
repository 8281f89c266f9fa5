/**
 * Memory that a worker and the kernel both see, so that the kernel can tell a busy thread from a dead one without a message.
 *
 *     i32[0]  beats      counts up every 100 ms while the event loop turns
 *     i32[1]  busy depth number of nested busy() sections the thread is in
 *     f64[1]  busy until milliseconds since the epoch by which the section has promised to end
 */
export const beatMs = 100;
export const pageBytes = 16;

export function beats(page: SharedArrayBuffer): number {
  return Atomics.load(new Int32Array(page), 0);
}

/** Whether the thread has said that it is inside a long system call, and is still within the time it said. */
export function busy(page: SharedArrayBuffer, now: number): boolean {
  return Atomics.load(new Int32Array(page), 1) > 0 && now < new Float64Array(page)[1]!;
}

export class ControlPage {
  readonly #flags: Int32Array;
  readonly #until: Float64Array;

  constructor(page: SharedArrayBuffer) {
    this.#flags = new Int32Array(page);
    this.#until = new Float64Array(page);
  }

  /** Starts the beat. The timer does not keep the worker alive. */
  beat(): void {
    setInterval(() => Atomics.add(this.#flags, 0, 1), beatMs).unref();
  }

  busy<T>(limitMs: number, work: () => T): T {
    this.#until[1] = Math.max(this.#until[1]!, Date.now() + limitMs);
    Atomics.add(this.#flags, 1, 1);
    try {
      return work();
    } finally {
      Atomics.sub(this.#flags, 1, 1);
    }
  }
}
