/** The threads that unpack and compare, started when there is work and ended when there has been none for a while. Each plugin that needs them has its own. */
import { availableParallelism } from 'node:os';
import { MessageChannel, type Transferable } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { Failure } from 'troupe/plugin';
import { receiveChunks } from './channel.ts';
import {
  type ApplyResult,
  type ApplyTask,
  type CompleteTask,
  type DiffResult,
  type DiffTask,
  type Outcome,
  TaskControl,
} from './task.ts';

export interface PoolOptions {
  /** 0: one for each processor. */
  readonly threads: number;
  /** Tasks that may wait. */
  readonly queue: number;
}

const IDLE_MS = 10_000;

/** What a diff gives: its bytes first, all of them, then the result. */
export interface DiffStream {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly result: Promise<DiffResult>;
  /** Nobody reads the rest: the task ends. Harmless at the end. */
  close(): void;
}

export class LayerPool {
  readonly #piscina: Piscina;
  readonly #options: PoolOptions;
  readonly #running = new Set<TaskControl>();

  constructor(options: PoolOptions) {
    this.#options = options;
    const threads = options.threads > 0 ? options.threads : availableParallelism();
    this.#piscina = new Piscina({
      filename: new URL('./worker.ts', import.meta.url).href,
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: IDLE_MS,
      maxQueue: Math.max(options.queue, 1),
      concurrentTasksPerWorker: 1,
      // Descriptors are opened by system calls and closed by Node; tasks close what they open.
      trackUnmanagedFds: false,
      // A thread that waits in Atomics.wait takes no inflated chunk off the loop.
      atomics: 'disabled',
    });
  }

  /** @param signal its abort ends the task within a MiB of data; the promise settles when the task has let go of everything */
  apply(task: Omit<ApplyTask, 'control'>, signal: AbortSignal): Promise<ApplyResult> {
    return this.#run<ApplyResult>('apply', signal, (control) => ({ ...task, control }));
  }

  /** @returns false when the layer must be applied anew, with those below it known */
  complete(task: CompleteTask, signal: AbortSignal): Promise<boolean> {
    return this.#run<boolean>('complete', signal, () => task);
  }

  diff(task: Omit<DiffTask, 'control' | 'port'>, signal: AbortSignal): DiffStream {
    const { port1, port2 } = new MessageChannel();
    const unread = new AbortController();
    const ended = AbortSignal.any([signal, unread.signal]);
    const result = this.#run<DiffResult>('diff', ended, (control) => ({ ...task, control, port: port2 }), [port2]);
    // Its failure ends the bytes as well.
    result.catch(() => port1.close());
    const close = (): void => {
      unread.abort(new Failure('Canceled', `${task.subject}: context canceled`));
      port1.close();
    };
    return { chunks: receiveChunks(port1), result, close };
  }

  /** Ends what runs, and waits for it. */
  async close(): Promise<void> {
    for (const control of this.#running) control.cancel();
    await this.#piscina.close();
  }

  async #run<T>(
    name: string,
    signal: AbortSignal,
    task: (control: SharedArrayBuffer) => object,
    transferList: Transferable[] = [],
  ): Promise<T> {
    if (signal.aborted) throw Failure.from(signal.reason);
    // Piscina counts what runs as queued until a thread has taken it, and refuses with an error that has no code.
    if (this.#piscina.queueSize >= this.#options.queue) {
      throw new Failure(
        'ResourceExhausted',
        `${this.#piscina.queueSize} layers wait for a thread already: resource exhausted`,
      );
    }
    const control = new TaskControl();
    const cancel = (): void => control.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    this.#running.add(control);
    try {
      const outcome = (await this.#piscina.run(task(control.buffer), {
        name,
        transferList: transferList as never,
      })) as Outcome<T>;
      if ('value' in outcome) return outcome.value;
      // What cancelled it says more than that it was cancelled.
      if (outcome.failure.code === 'Canceled' && signal.aborted) throw Failure.from(signal.reason);
      throw Failure.fromRecord(outcome.failure);
    } catch (error) {
      if (error instanceof Failure) throw error;
      // A task that waited for a thread while its port was closed cannot be posted any more.
      if (signal.aborted) throw Failure.from(signal.reason);
      throw new Failure('Unavailable', `thread of the layer pool: ${(error as Error).message}: unavailable`, {
        cause: error,
      });
    } finally {
      this.#running.delete(control);
      signal.removeEventListener('abort', cancel);
    }
  }
}
