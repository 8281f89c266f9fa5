/** Waits for what makes no event, and fails with what was waited for instead of never ending. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';

/** Looks again and again until it holds; a test goes no further when it does not. @param patienceMs more than a machine ever takes that is busy with other things */
export async function eventually(
  t: ExecutionContext,
  what: string,
  holds: () => boolean | Promise<boolean>,
  patienceMs = 60_000,
): Promise<void> {
  const end = performance.now() + patienceMs;
  for (;;) {
    if (await holds()) return void t.pass(what);
    if (performance.now() > end) break;
    await sleep(10);
  }
  t.fail(`${what}: not within ${patienceMs / 1000} s`);
  throw new Error(what);
}
