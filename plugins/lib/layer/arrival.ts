/**
 * A blob's file that somebody is still writing: whoever reads it waits for the rest, on a thread that may wait.
 *
 * It is looked at again and again, since the writer is another plugin that knows nothing of its readers: some hundred looks a second, only while all that has
 * come is used up.
 */
import { fstatSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';

const LOOK_MS = 5;

export interface ArrivalOptions {
  /** For messages: `layer sha256:…` */
  readonly subject: string;
  /** Bytes that the file will have. */
  readonly size: number;
  /** Time without a byte after which it is given up, ms. */
  readonly patienceMs: number;
  /** Non-zero: the task is to end. */
  readonly cancel: Int32Array;
  /** Non-zero: something else waits for this thread. */
  readonly waiting: Int32Array;
}

export class Arrival {
  readonly #fd: number;
  readonly #options: ArrivalOptions;
  /** Since when there is nothing to read. */
  #since: number | undefined;

  constructor(fd: number, options: ArrivalOptions) {
    this.#fd = fd;
    this.#options = options;
  }

  /** Whether all bytes are there; a file that is longer is another one. */
  get complete(): boolean {
    return this.#length >= this.#options.size;
  }

  /**
   * Waits until the file has bytes behind `offset`, or will never have any since that is its end. The thread stands still.
   *
   * @throws Failure Aborted when none come, or the thread is needed; Canceled
   */
  wait(offset: number): void {
    while (!this.#has(offset)) Atomics.wait(this.#options.cancel, 0, 0, LOOK_MS);
  }

  /** As `wait`, and the thread does other things. */
  async waitAsync(offset: number): Promise<void> {
    while (!this.#has(offset)) await sleep(LOOK_MS);
  }

  #has(offset: number): boolean {
    const { subject, size, patienceMs, cancel, waiting } = this.#options;
    if (offset >= size || this.#length > offset) {
      this.#since = undefined;
      return true;
    }
    if (Atomics.load(cancel, 0) !== 0) throw new Failure('Canceled', `${subject}: context canceled`);
    if (Atomics.load(waiting, 0) !== 0) throw givenUp(subject, 'what is complete needs the thread that follows it');
    this.#since ??= performance.now();
    if (performance.now() - this.#since > patienceMs) throw givenUp(subject, `no byte has come for ${patienceMs} ms`);
    return false;
  }

  get #length(): number {
    return fstatSync(this.#fd).size;
  }
}

/** Of an attempt to follow a blob; see `LayerPool.follow`. */
export function givenUp(subject: string, why: string): Failure {
  return new Failure('Aborted', `${subject}: cannot be unpacked while it comes: ${why}: aborted`);
}
