/** Runs a module in a thread until it posts its one answer. */
import { Worker } from 'node:worker_threads';
import { Failure } from 'troupe/plugin';

/** What a thread, or its connection, says when no descriptor is left to open. */
const scarcity = /ERR_WORKER_INIT_FAILED|EMFILE|ENFILE|unable to open database file/;

/**
 * @param module of this folder, which posts exactly one message.
 * @returns that message. Rejects when the thread fails, ends without one, or the signal aborts; the thread is gone by then. For want of descriptors
 * it is Failure Unavailable: another time it may go.
 */
export async function runThread<T>(module: URL, workerData: unknown, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  const worker = new Worker(module, { workerData });
  const abort = () => void worker.terminate();
  signal?.addEventListener('abort', abort);
  try {
    return await new Promise<T>((resolve, reject) => {
      let answer: { value: T } | undefined;
      worker.once('message', (value: T) => {
        answer = { value };
      });
      worker.once('error', (error: NodeJS.ErrnoException) =>
        reject(
          scarcity.test(`${error.code} ${error.message}`)
            ? new Failure('Unavailable', `records: ${error.message}: unavailable`, { cause: error })
            : error,
        ),
      );
      worker.once('exit', (code) => {
        if (answer !== undefined) resolve(answer.value);
        else reject(signal?.reason ?? new Error(`thread ended with ${code}, without an answer`));
      });
    });
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
