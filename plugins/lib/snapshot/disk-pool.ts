/**
 * The pool threads of a snapshotter: loaded and started by the first task, gone after a quiet while, so an idle daemon pays nothing for them.
 * A first task waits some 50 ms for its thread, the next ones do not.
 */
import { openThreads, type Threads } from '../pool/threads.ts';
import type { Outcome } from './disk.ts';
import type { Measure } from './measure.ts';

const module = new URL('./disk.ts', import.meta.url);
const IDLE_MS = 20_000;

/** A task ran and its work failed. Any other rejection says that no thread could be had for it: with no file to open left, say. */
export class TaskFailure extends Error {
  readonly code: string;

  constructor({ message, code }: { message: string; code: string }) {
    super(message);
    this.name = 'TaskFailure';
    this.code = code;
  }
}

export class DiskPool {
  #work: Threads | undefined;
  #removals: Threads | undefined;
  #closings = 0;
  #lastRemoval: Promise<void> = Promise.resolve();

  sync(fd: number): Promise<void> {
    return this.#run('sync', { fd });
  }

  measure(path: string): Promise<Measure> {
    return this.#run('measure', { path });
  }

  copy(from: string, to: string): Promise<void> {
    return this.#run('copy', { from, to });
  }

  /** Removals go one after another, wait for nothing else, and keep nobody waiting. */
  unlink(parent: string, name: string): Promise<void> {
    const closings = this.#closings;
    const run = async (): Promise<void> => {
      // The one before may have been rejected by that: no new thread is begun for what has waited.
      if (closings !== this.#closings) throw new Error('the pool has been closed');
      this.#removals ??= openThreads(module, { maxThreads: 1, idleTimeout: IDLE_MS / 10 });
      return unwrap<void>(await this.#removals.pool.run({ parent, name }, { name: 'unlink' }));
    };
    const removed = this.#lastRemoval.then(run, run);
    this.#lastRemoval = removed;
    return removed;
  }

  async #run<T>(name: string, task: object): Promise<T> {
    this.#work ??= openThreads(module, { maxThreads: 2, idleTimeout: IDLE_MS });
    return unwrap<T>(await this.#work.pool.run(task, { name }));
  }

  /** Ends the threads; tasks that are under way are rejected. */
  async close(): Promise<void> {
    this.#closings += 1;
    const pools = [this.#work, this.#removals];
    this.#work = undefined;
    this.#removals = undefined;
    await Promise.all(pools.map((each) => each?.destroy()));
  }
}

function unwrap<T>(outcome: Outcome<T>): T {
  if ('value' in outcome) return outcome.value;
  throw new TaskFailure(outcome.failed);
}
