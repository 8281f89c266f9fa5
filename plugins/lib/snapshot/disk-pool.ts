/** The pool threads of a snapshotter: started by the first task, gone after a quiet while, so an idle daemon pays nothing for them. */
import { Piscina } from 'piscina';
import type { Outcome } from './disk.ts';
import type { Measure } from './measure.ts';

const filename = new URL('./disk.ts', import.meta.url).href;
const IDLE_MS = 20_000;

export class DiskPool {
  readonly #work = new Piscina({ filename, minThreads: 0, maxThreads: 2, idleTimeout: IDLE_MS });
  /** Removals go one after another, wait for nothing else, and keep nobody waiting. */
  readonly #removals = new Piscina({ filename, minThreads: 0, maxThreads: 1, idleTimeout: IDLE_MS / 10 });
  #lastRemoval: Promise<void> = Promise.resolve();

  sync(fd: number): Promise<void> {
    return unwrap(this.#work.run({ fd }, { name: 'sync' }));
  }

  measure(path: string): Promise<Measure> {
    return unwrap(this.#work.run({ path }, { name: 'measure' }));
  }

  copy(from: string, to: string): Promise<void> {
    return unwrap(this.#work.run({ from, to }, { name: 'copy' }));
  }

  unlink(parent: string, name: string): Promise<void> {
    const run = (): Promise<void> => unwrap(this.#removals.run({ parent, name }, { name: 'unlink' }));
    const removed = this.#lastRemoval.then(run, run);
    this.#lastRemoval = removed;
    return removed;
  }

  async close(): Promise<void> {
    await Promise.all([this.#work.destroy(), this.#removals.destroy()]);
  }
}

async function unwrap<T>(running: Promise<Outcome<T>>): Promise<T> {
  const outcome = await running;
  if ('value' in outcome) return outcome.value;
  throw Object.assign(new Error(outcome.failed.message), { code: outcome.failed.code });
}
