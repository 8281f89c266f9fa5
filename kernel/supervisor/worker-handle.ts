/**
 * One worker as the kernel holds it: spawned, spoken to with a deadline on every call, and ended by a ladder that cannot hang.
 * The only place that makes a Worker.
 */
import { locks, MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { prebuilt } from '../prebuilt/find.ts';
import { pageBytes, threadIdOf } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { ToKernel, ToWorker, WorkerControl, WorkerInit } from '../sdk/protocol.ts';
import { calm } from '../sdk/urgency.ts';
import { shareLoads, loadsEnded } from '../sys/loading.ts';

shareLoads();

const entry = new URL('../sdk/entry.ts', import.meta.url);

/** Milliseconds a worker may take to die of terminate(). One stuck in native code, or in a loop V8 compiled without checks, never does. */
const terminateMs = 2000;

/** Milliseconds for which a new thread may go before the others: one that loops while it starts would have a processor for itself. */
const urgentMs = 1000;

/** Megabytes of heap and external memory. */
export interface WorkerLimits {
  /** Polled from outside, and the worker is ended above it. */
  readonly softMb: number;
  /** V8's own limit of the old generation; far above the soft one, because reaching it often aborts the process. */
  readonly hardMb: number;
}

export interface WorkerHandle {
  /** Name of the thread. */
  readonly thread: string;
  /** Ids of the plugins that it hosts. */
  readonly plugins: readonly string[];
  readonly limits: WorkerLimits;
  readonly page: SharedArrayBuffer;
  /** For looking at it from outside; what it does is asked of the methods here. */
  readonly worker: Pick<
    Worker,
    'threadId' | 'performance' | 'cpuUsage' | 'getHeapStatistics' | 'startCpuProfile' | 'getHeapSnapshot'
  >;
  /** Resolves with the reason when the thread has ended. Never rejects. */
  readonly exited: Promise<string>;
  readonly gone: boolean;
  send(message: ToWorker, transfer?: readonly MessagePort[]): void;
  /**
   * A control call. Rejects with Unavailable when the worker ends first, DeadlineExceeded when it is silent for too long.
   * @param deadlineMs may be infinite
   */
  call<K extends keyof WorkerControl>(
    method: K,
    args: Parameters<WorkerControl[K]>,
    deadlineMs: number,
  ): Promise<Awaited<ReturnType<WorkerControl[K]>>>;
  /**
   * Ends the thread for `reason`. Resolves false when it does not end within two seconds: then process.exit() would hang as well,
   * and only a signal ends the process.
   */
  terminate(reason: string): Promise<boolean>;
}

export type MakeWorker = (
  init: Omit<WorkerInit, 'page' | 'channel'>,
  limits: WorkerLimits,
  onMessage: (message: ToKernel) => void,
) => WorkerHandle;

export const makeWorker: MakeWorker = (init, limits, onMessage) => new NodeWorker(init, limits, onMessage);

class NodeWorker implements WorkerHandle {
  readonly thread: string;
  readonly plugins: readonly string[];
  readonly limits: WorkerLimits;
  readonly page = new SharedArrayBuffer(pageBytes);
  readonly worker: Worker;
  readonly exited: Promise<string>;
  readonly #control: comlink.Remote<WorkerControl>;
  readonly #channel: MessagePort;
  /** What rejects the calls under way when it ends. A reaction on `exited` for each call would stay there for the worker's life. */
  readonly #calls = new Set<(reason: string) => void>();
  #reason: string | undefined;
  #gone = false;

  constructor(...[init, limits, onMessage]: Parameters<MakeWorker>) {
    this.thread = init.thread;
    this.plugins = init.plugins.map((plugin) => plugin.id);
    this.limits = limits;
    const { port1, port2 } = new MessageChannel();
    this.#channel = port1;
    port1.on('message', onMessage);
    const workerData: WorkerInit = { ...init, page: this.page, channel: port2 };
    this.worker = new Worker(prebuilt(init.plugins.map(({ dir }) => dir)) ?? entry, {
      name: init.thread,
      workerData,
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: limits.hardMb, maxYoungGenerationSizeMb: 4 },
      // Node would close what the thread opened through node:fs when it ends, also numbers that have been closed elsewhere and are another
      // thread's by then: an epoll descriptor lost that way aborts the process (seen). A crashed thread's few descriptors are the lesser evil.
      trackUnmanagedFds: false,
    });
    const { niceness } = init;
    // As often as it takes: on a machine that is very busy it has not said by then which thread it is.
    const calming = setInterval(() => {
      const threadId = threadIdOf(this.page);
      if (threadId === 0) return;
      clearInterval(calming);
      if (niceness !== undefined) calm(threadId, niceness);
    }, urgentMs).unref();
    this.exited = new Promise((resolve) => {
      this.worker.on('error', (error) => {
        this.#reason ??= describe(error);
      });
      this.worker.on('exit', (code) => {
        this.#gone = true;
        clearInterval(calming);
        port1.close();
        const reason = this.#reason ?? `exited with code ${code}`;
        for (const reject of [...this.#calls]) reject(reason);
        resolve(reason);
        // Waiters for a lock that a dead thread held wake only at the next request in the process (measured, Node 26).
        void locks.request('troupe:wake', () => undefined).then(undefined, () => undefined);
      });
    });
    // Held for the life of the handle: comlink drops replies in flight when a proxy is collected (comlink#692).
    this.#control = comlink.wrap<WorkerControl>(nodeEndpoint(this.worker));
  }

  get gone(): boolean {
    return this.#gone;
  }

  send(message: ToWorker, transfer: readonly MessagePort[] = []): void {
    if (this.#gone) {
      for (const port of transfer) port.close();
      return;
    }
    this.#channel.postMessage(message, [...transfer]);
  }

  call<K extends keyof WorkerControl>(
    method: K,
    args: Parameters<WorkerControl[K]>,
    deadlineMs: number,
  ): Promise<Awaited<ReturnType<WorkerControl[K]>>> {
    type Answer = Awaited<ReturnType<WorkerControl[K]>>;
    const remote = this.#control[method] as unknown as (...args: unknown[]) => Promise<Answer>;
    return new Promise((resolve, reject) => {
      const died = (reason: string) => {
        done();
        const text = `worker ${this.thread} ended during ${method}: ${reason}: unavailable`;
        reject(new Failure('Unavailable', text));
      };
      const late = () => {
        done();
        const text = `worker ${this.thread} has not answered ${method} within ${deadlineMs} ms: deadline exceeded`;
        reject(new Failure('DeadlineExceeded', text));
      };
      const timer = deadlineMs === Number.POSITIVE_INFINITY ? undefined : setTimeout(late, deadlineMs);
      const done = () => {
        clearTimeout(timer);
        this.#calls.delete(died);
      };
      if (this.#gone) {
        died(this.#reason ?? 'it has ended');
        return;
      }
      this.#calls.add(died);
      remote(...args).then(
        (answer) => {
          done();
          resolve(answer);
        },
        (error: unknown) => {
          done();
          reject(error);
        },
      );
    });
  }

  async terminate(reason: string): Promise<boolean> {
    if (this.#gone) return true;
    this.#reason ??= reason;
    await loadsEnded();
    void this.worker.terminate();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), terminateMs);
    });
    const ended = await Promise.race([this.exited.then(() => true as const), late]);
    clearTimeout(timer);
    return ended;
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const { code } = error as NodeJS.ErrnoException;
  const first = error.stack?.split('\n').find((line) => line.includes('file:')) ?? '';
  return [code, error.message, first.trim()].filter(Boolean).join(' ');
}
