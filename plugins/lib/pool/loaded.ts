/**
 * When the threads of a piscina pool may be ended. A thread that is terminated while it loads koffi takes the process with it (kernel/sys/libc.ts), and piscina
 * terminates also those that have not started yet. They load their module before they say that they are ready, so whoever waits for that is safe.
 */
import { once } from 'node:events';
import type { Piscina } from 'piscina';

/** For a pool that was just made, with no threads from the start: those piscina takes for ready at once. */
export class LoadedThreads {
  readonly #pool: Piscina;
  /** By their ids. */
  readonly #ready = new Set<number>();

  constructor(pool: Piscina) {
    this.#pool = pool;
    pool.on('workerCreate', ({ id }: { id: number }) => this.#ready.add(id));
    pool.on('workerDestroy', ({ id }: { id: number }) => this.#ready.delete(id));
  }

  /** Resolves when no thread is loading: what ends them must follow at once. */
  async all(): Promise<void> {
    for (;;) {
      const loading = this.#pool.threads.filter(({ threadId }) => !this.#ready.has(threadId));
      if (loading.length === 0) return;
      // Its first message says that it is ready; one that fails instead ends.
      await Promise.allSettled(loading.map((thread) => Promise.race([once(thread, 'message'), once(thread, 'exit')])));
    }
  }
}
