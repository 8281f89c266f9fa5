/** Work side by side. */
import { Failure } from 'troupe/plugin';

/**
 * Runs all with one signal, which aborts at the first failure; settles when all have, so that nothing runs on behind an answer.
 *
 * @throws the first failure
 */
export async function together(
  signal: AbortSignal,
  work: readonly ((signal: AbortSignal) => Promise<unknown>)[],
): Promise<void> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  let first: { readonly error: unknown } | undefined;
  await Promise.all(
    work.map(async (each) => {
      try {
        await each(both);
      } catch (error) {
        first ??= { error };
        stop.abort(new Failure('Canceled', 'another part of it failed: context canceled'));
      }
    }),
  );
  if (signal.aborted) throw Failure.from(signal.reason);
  if (first !== undefined) throw first.error;
}

/** So many at a time, in the order in which they came. */
export class Slots {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #taken = 0;

  /** @param limit 0: any number */
  constructor(limit: number) {
    this.#limit = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  }

  async use<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#take(signal);
    try {
      return await work();
    } finally {
      this.#taken--;
      this.#waiting.shift()?.();
    }
  }

  async #take(signal: AbortSignal): Promise<void> {
    while (this.#taken >= this.#limit) {
      signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        const go = (): void => {
          signal.removeEventListener('abort', leave);
          resolve();
        };
        const leave = (): void => {
          const at = this.#waiting.indexOf(go);
          if (at >= 0) this.#waiting.splice(at, 1);
          resolve();
        };
        this.#waiting.push(go);
        signal.addEventListener('abort', leave, { once: true });
      });
    }
    signal.throwIfAborted();
    this.#taken++;
  }
}
