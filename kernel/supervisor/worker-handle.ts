/**
 * One worker as the kernel holds it: spawned, spoken to with a deadline on every call, and ended by a ladder that cannot hang.
 * The only place that makes a Worker.
 */
import { MessageChannel, type MessagePort, Worker, locks } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { pageBytes } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { ToKernel, ToWorker, WorkerControl, WorkerInit } from '../sdk/protocol.ts';

const entry = new URL('../sdk/entry.ts', import.meta.url);

/** Milliseconds a worker may take to die of terminate(). One stuck in native code, or in a loop V8 compiled without checks, never does. */
const terminateMs = 2000;

export interface WorkerLimits {
  /** V8's own limit of the old generation; far above the soft one that the watch enforces, because reaching it often aborts the process. */
  readonly hardMb: number;
}

export class WorkerHandle {
  readonly thread: string;
  readonly page = new SharedArrayBuffer(pageBytes);
  readonly worker: Worker;
  /** Resolves with the reason when the thread has ended. Never rejects. */
  readonly exited: Promise<string>;
  readonly #control: comlink.Remote<WorkerControl>;
  readonly #channel: MessagePort;
  #reason: string | undefined;
  #gone = false;

  constructor(
    init: Omit<WorkerInit, 'page' | 'channel'>,
    limits: WorkerLimits,
    onMessage: (message: ToKernel) => void,
  ) {
    this.thread = init.thread;
    const { port1, port2 } = new MessageChannel();
    this.#channel = port1;
    port1.on('message', onMessage);
    const workerData: WorkerInit = { ...init, page: this.page, channel: port2 };
    this.worker = new Worker(entry, {
      name: init.thread,
      workerData,
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: limits.hardMb, maxYoungGenerationSizeMb: 4 },
      // Node would close what the thread opened through node:fs when it ends, also numbers that have been closed elsewhere and are another
      // thread's by then: an epoll descriptor lost that way aborts the process (seen). A crashed thread's few descriptors are the lesser evil.
      trackUnmanagedFds: false,
    });
    this.exited = new Promise((resolve) => {
      this.worker.on('error', (error) => {
        this.#reason ??= describe(error);
      });
      this.worker.on('exit', (code) => {
        this.#gone = true;
        port1.close();
        resolve(this.#reason ?? `exited with code ${code}`);
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

  /** A control call. Rejects with Unavailable when the worker ends first, DeadlineExceeded when it is silent for too long. */
  async call<K extends keyof WorkerControl>(
    method: K,
    args: Parameters<WorkerControl[K]>,
    deadlineMs: number,
  ): Promise<Awaited<ReturnType<WorkerControl[K]>>> {
    const remote = this.#control[method] as unknown as (
      ...args: unknown[]
    ) => Promise<Awaited<ReturnType<WorkerControl[K]>>>;
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () =>
          reject(
            new Failure(
              'DeadlineExceeded',
              `worker ${this.thread} has not answered ${method} within ${deadlineMs} ms: deadline exceeded`,
            ),
          ),
        deadlineMs,
      );
    });
    const death = this.exited.then((reason) => {
      throw new Failure('Unavailable', `worker ${this.thread} ended during ${method}: ${reason}: unavailable`);
    });
    try {
      return await Promise.race([remote(...args), deadline, death]);
    } finally {
      clearTimeout(timer);
      death.catch(() => undefined);
    }
  }

  /**
   * Ends the thread for `reason`. Resolves false when it does not end within two seconds: then process.exit() would hang as well,
   * and only a signal ends the process.
   */
  async terminate(reason: string): Promise<boolean> {
    if (this.#gone) return true;
    this.#reason ??= reason;
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
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  const first = error.stack?.split('\n').find((line) => line.includes('file:')) ?? '';
  return [code, error.message, first.trim()].filter(Boolean).join(' ');
}
