/** Runs a module in a thread until it posts its one answer. */
import { Worker } from 'node:worker_threads';

/**
 * @param module of this folder, which posts exactly one message.
 * @returns that message. Rejects when the thread fails, ends without one, or the signal aborts; the thread is gone by then.
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
      worker.once('error', reject);
      worker.once('exit', (code) => {
        if (answer !== undefined) resolve(answer.value);
        else reject(signal?.reason ?? new Error(`thread ended with ${code}, without an answer`));
      });
    });
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
