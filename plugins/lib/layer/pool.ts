/**
 * The threads that unpack and compare, started when there is work and ended when there has been none for a while. Each plugin that needs them has its own.
 *
 * Files that are many and small are synced while they are unpacked, by a thread of its own, since it does little but wait; so the sync that makes a layer
 * durable has only the last of them left. A thread that nothing waits for assists at the layer that has the most to come (feed.ts); as soon as something waits, it is called back.
 */
import { availableParallelism } from 'node:os';
import { MessageChannel, type Transferable } from 'node:worker_threads';
import { Failure } from 'troupe/plugin';
import type { Inflate } from '../compression/decoder.ts';
import { openThreads, type Threads } from '../pool/threads.ts';
import { givenUp } from './arrival.ts';
import { receiveChunks } from './channel.ts';
import { FeedMemory } from './feed-memory.ts';
import {
  type ApplyResult,
  type ApplyTask,
  type AssistTask,
  type CompleteTask,
  type DiffResult,
  type DiffTask,
  type Outcome,
  TaskControl,
  type WriteAheadTask,
} from './task.ts';

export interface PoolOptions {
  /** 0: one for each processor. */
  readonly threads: number;
  /** Tasks that may wait. */
  readonly queue: number;
  /** Default `auto`. */
  readonly inflate?: Inflate;
}

const IDLE_MS = 10_000;
/** An image's layers come one behind the other; the threads are for them first. */
const ASSIST_AFTER_MS = 5;
/** Compressed bytes below which a layer is done sooner than an assistant is there. */
const WORTHWHILE = 2 << 20;

/** A layer whose blob lies in a file. */
export type LayerTask = Omit<ApplyTask, 'control' | 'memory' | 'inflate' | 'arriving'>;

/** What a diff gives: its bytes first, all of them, then the result. */
export interface DiffStream {
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly result: Promise<DiffResult>;
  /** Nobody reads the rest: the task ends. Harmless at the end. */
  close(): void;
}

/** A layer that is being unpacked. */
interface Unpacking {
  readonly size: number;
  readonly memory: FeedMemory;
  assistant: Promise<void> | undefined;
}

/** What waits for a thread. */
interface Turn {
  admit(): void;
  refuse(why: Failure): void;
}

export class LayerPool {
  readonly #threads: number;
  #opened: Threads | undefined;
  readonly #options: PoolOptions;
  readonly #running = new Set<TaskControl>();
  readonly #waiting: Turn[] = [];
  /** How many those are, for threads that follow a blob. */
  readonly #waitingCount = new Int32Array(new SharedArrayBuffer(4));
  #following = 0;
  #closed = false;
  /** Tasks that have a thread, assistants not counted. */
  #busy = 0;
  #assistants = 0;
  #writingAhead = false;
  readonly #unpacking = new Set<Unpacking>();
  readonly #spare: FeedMemory[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#threads = options.threads > 0 ? options.threads : availableParallelism();
  }

  /** @param signal its abort ends the task within a MiB of data; the promise settles when the task has let go of everything */
  apply(task: LayerTask, signal: AbortSignal): Promise<ApplyResult> {
    return this.#apply(task, signal);
  }

  /**
   * As `apply`, of a blob that is still being written. Such a layer holds a thread that mostly waits, so it gets one only if it is free, all but one of them
   * do that at most, and the thread goes to what is complete as soon as the one waits for bytes and the other for a thread.
   *
   * @param patienceMs time without a byte after which it is given up
   * @throws Failure Aborted when it is given up, or not begun; part of the layer may be there
   */
  async follow(task: LayerTask, patienceMs: number, signal: AbortSignal): Promise<ApplyResult> {
    if (this.#busy >= this.#threads || this.#following >= Math.max(this.#threads - 1, 1))
      throw givenUp(task.subject, 'no thread is free');
    this.#following++;
    try {
      const arriving = { patienceMs, waiting: this.#waitingCount.buffer as SharedArrayBuffer };
      return await this.#apply({ ...task, arriving }, signal);
    } finally {
      this.#following--;
    }
  }

  #apply(task: Omit<ApplyTask, 'control' | 'memory' | 'inflate'>, signal: AbortSignal): Promise<ApplyResult> {
    return this.#withThread(signal, async () => {
      const memory = this.#spare.pop() ?? new FeedMemory();
      memory.reset();
      const unpacking: Unpacking = { size: task.size, memory, assistant: undefined };
      this.#unpacking.add(unpacking);
      try {
        const inflate = this.#options.inflate ?? 'auto';
        return await this.#run<ApplyResult>('apply', signal, (control) => ({
          ...task,
          inflate,
          control,
          memory: memory.buffers,
        }));
      } finally {
        this.#unpacking.delete(unpacking);
        memory.close();
        await unpacking.assistant;
        this.#spare.push(memory);
      }
    });
  }

  /** @returns false when the layer must be applied anew, with those below it known */
  complete(task: CompleteTask, signal: AbortSignal): Promise<boolean> {
    return this.#withThread(signal, () => this.#run<boolean>('complete', signal, () => task));
  }

  diff(task: Omit<DiffTask, 'control' | 'port'>, signal: AbortSignal): DiffStream {
    const { port1, port2 } = new MessageChannel();
    const unread = new AbortController();
    const ended = AbortSignal.any([signal, unread.signal]);
    const result = this.#withThread(ended, () =>
      this.#run<DiffResult>('diff', ended, (control) => ({ ...task, control, port: port2 }), [port2]),
    );
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
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const turn of this.#waiting.splice(0)) turn.refuse(ended());
    this.#countWaiting();
    for (const control of this.#running) control.cancel();
    await this.#opened?.close();
  }

  /** Runs `work` when a thread is there for it. */
  async #withThread<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (signal.aborted) throw Failure.from(signal.reason);
    if (this.#closed) throw ended();
    if (this.#busy + this.#assistants >= this.#threads) await this.#turn(signal);
    else this.#busy++;
    this.#considerAssistance();
    try {
      return await work();
    } finally {
      this.#busy--;
      this.#admit();
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= this.#options.queue) {
      throw new Failure(
        'ResourceExhausted',
        `${this.#waiting.length} layers wait for a thread already: resource exhausted`,
      );
    }
    return new Promise((resolve, reject) => {
      const settled = (): void => signal.removeEventListener('abort', cancel);
      const turn: Turn = {
        admit: () => {
          settled();
          resolve();
        },
        refuse: (why) => {
          settled();
          reject(why);
        },
      };
      const cancel = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(turn), 1);
        this.#countWaiting();
        turn.refuse(Failure.from(signal.reason));
      };
      signal.addEventListener('abort', cancel, { once: true });
      this.#waiting.push(turn);
      this.#countWaiting();
      for (const { assistant, memory } of this.#unpacking) if (assistant !== undefined) memory.release();
    });
  }

  /** A thread has come free: for what waits, or to assist. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#busy + this.#assistants < this.#threads) {
      this.#busy++;
      this.#waiting.shift()!.admit();
    }
    this.#countWaiting();
    if (this.#busy + this.#assistants === 0) this.#spare.length = 0;
    this.#considerAssistance();
  }

  #countWaiting(): void {
    Atomics.store(this.#waitingCount, 0, this.#waiting.length);
  }

  #considerAssistance(): void {
    if (this.#closed || this.#timer !== undefined || this.#busy + this.#assistants >= this.#threads) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#assist();
    }, ASSIST_AFTER_MS);
    this.#timer.unref();
  }

  #assist(): void {
    const threads = this.#opened;
    if (threads === undefined) return;
    const candidates = [...this.#unpacking]
      .filter(({ assistant, size, memory }) => assistant === undefined && size >= WORTHWHILE && !memory.is('closed'))
      .sort((a, b) => b.size - a.size);
    for (const unpacking of candidates) {
      if (this.#waiting.length > 0 || this.#busy + this.#assistants >= this.#threads) return;
      this.#assistants++;
      const task: AssistTask = { memory: unpacking.memory.buffers };
      unpacking.assistant = threads.pool
        .run(task, { name: 'assist' })
        .catch(() => unpacking.memory.lost())
        .then(() => {
          unpacking.assistant = undefined;
          this.#assistants--;
          this.#admit();
        });
    }
  }

  #open(): Threads {
    this.#opened ??= openThreads(new URL('./worker.ts', import.meta.url), {
      // One more for what mostly waits for the disk.
      maxThreads: this.#threads + 1,
      idleTimeout: IDLE_MS,
      // A thread that waits in Atomics.wait, as piscina's own do, takes no inflated chunk off its loop.
      atomics: 'disabled',
    });
    this.#opened.pool.on('message', (task: WriteAheadTask) => this.#writeAhead(task));
    return this.#opened;
  }

  /** One at a time; what comes meanwhile will be asked for again. */
  #writeAhead(task: WriteAheadTask): void {
    if (this.#writingAhead || this.#closed) return;
    this.#writingAhead = true;
    const done = (): void => {
      this.#writingAhead = false;
    };
    this.#opened!.pool.run(task, { name: 'writeAhead' }).then(done, done);
  }

  async #run<T>(
    name: string,
    signal: AbortSignal,
    task: (control: SharedArrayBuffer) => object,
    transferList: Transferable[] = [],
  ): Promise<T> {
    if (signal.aborted) throw Failure.from(signal.reason);
    const control = new TaskControl();
    const cancel = (): void => control.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    this.#running.add(control);
    try {
      const outcome = (await this.#open().pool.run(task(control.buffer), {
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

function ended(): Failure {
  return new Failure('Unavailable', 'the layer pool has been closed: unavailable');
}
