/** What takes a task away needs descriptors, and nobody else does it: for want of them it waits. */
import { setTimeout as delay } from 'node:timers/promises';

/** How long, ms, it waits at most, and between two attempts. */
const scarcityMs = 20_000;
const pauseMs = 250;

/** Whether an error, or what caused it, says that the process or the machine has no descriptor left (open(2)). */
export function isScarcity(error: unknown): boolean {
  const { code, cause } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE' || (cause !== undefined && isScarcity(cause));
}

/** @param work may be begun several times. @throws as it does, at last */
export async function whenThereAreDescriptors<T>(work: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + scarcityMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isScarcity(error) || performance.now() > deadline) throw error;
      await delay(pauseMs);
    }
  }
}
