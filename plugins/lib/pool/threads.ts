/**
 * A piscina pool, loaded by who has work for it: a daemon that is not asked holds neither the library nor its histograms, 1 MB in each thread that has them.
 *
 * A thread that is terminated while it loads koffi takes the process with it (kernel/sys/libc.ts), and piscina terminates also those that have not started yet.
 * They load their module before they say that they are ready, so both ways of ending wait for that.
 */
import { once } from 'node:events';
import { createRequire } from 'node:module';
import type { Piscina } from 'piscina';
import { prebuiltThread } from 'troupe/prebuilt';

export interface ThreadsOptions {
  readonly maxThreads: number;
  /** ms without a task after which a thread ends. */
  readonly idleTimeout?: number;
  /** Default: piscina's. */
  readonly atomics?: 'disabled';
}

const require = createRequire(import.meta.url);

/** @param module whose functions are the tasks. @throws Error when the library cannot be loaded, with no descriptor left, say: the next time it may */
export function openThreads(module: URL, options: ThreadsOptions): Threads {
  // Node remembers an `import()` that failed for want of a descriptor, and fails all that come after. A `require()` it tries again.
  const { Piscina: Pool } = require('piscina') as typeof import('piscina');
  return new Threads(
    new Pool({
      ...options,
      filename: (prebuiltThread(module) ?? module).href,
      minThreads: 0,
      maxQueue: Number.POSITIVE_INFINITY,
      concurrentTasksPerWorker: 1,
      recordTiming: false,
      // Descriptors are opened by system calls and closed by Node; tasks close what they open.
      trackUnmanagedFds: false,
    }),
  );
}

export class Threads {
  readonly pool: Piscina;
  /** By their ids. */
  readonly #ready = new Set<number>();

  constructor(pool: Piscina) {
    this.pool = pool;
    pool.on('workerCreate', ({ id }: { id: number }) => this.#ready.add(id));
    pool.on('workerDestroy', ({ id }: { id: number }) => this.#ready.delete(id));
  }

  /** Waits for the tasks that are under way. */
  async close(): Promise<void> {
    await this.#loaded();
    await this.pool.close();
  }

  /** Rejects them. */
  async destroy(): Promise<void> {
    await this.#loaded();
    await this.pool.destroy();
  }

  /** Resolves when no thread is loading: what ends them must follow at once. */
  async #loaded(): Promise<void> {
    for (;;) {
      const loading = this.pool.threads.filter(({ threadId }) => !this.#ready.has(threadId));
      if (loading.length === 0) return;
      // Its first message says that it is ready; one that fails instead ends.
      await Promise.allSettled(loading.map((thread) => Promise.race([once(thread, 'message'), once(thread, 'exit')])));
    }
  }
}
