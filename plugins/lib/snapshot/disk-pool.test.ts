import { closeSync, openSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { DiskPool } from './disk-pool.ts';

/** How a task ended, as far as it may. */
function ending(end: PromiseSettledResult<unknown>): string {
  if (end.status === 'fulfilled') return 'done';
  const { message, code } = end.reason as Error & { code?: string };
  if (code === 'ENOENT') return 'done';
  return /^(the pool has been closed|Terminating worker thread)$/.test(message) ? 'closed' : message;
}

const threads = (): number => readdirSync('/proc/self/task').length;

// A thread that is terminated while koffi loads takes the process with it (kernel/sys/libc.ts): this file would end with SIGABRT within some twenty rounds.
test.serial(
  'a pool is closed at any moment of its threads’ start, and the process lives on, with no thread more',
  async (t) => {
    const fd = openSync('/', 'r');
    const endings = new Set<string>();
    let startMs = 0;
    let before = 0;
    for (let round = 0; round < 24; round++) {
      const pool = new DiskPool();
      const began = performance.now();
      const work = [pool.sync(fd), pool.measure(import.meta.dirname), pool.unlink('/nonexistent', 'none')];
      const settled = Promise.allSettled(work);
      // How long a start takes is the machine's; the first has to load what the others find compiled.
      if (round < 2) {
        await work[0];
        startMs = performance.now() - began;
      } else await sleep(startMs * (0.5 + round / 32));
      await pool.close();
      for (const end of await settled) endings.add(ending(end));
      if (round === 1) before = threads();
    }
    closeSync(fd);
    t.deepEqual([...endings].sort(), ['closed', 'done'], 'some rounds close before the start, some after it');
    t.true(threads() <= before, `${threads()} threads, ${before} before`);
  },
);

test('what waits for a pool that is closed is rejected, and begins no other thread', async (t) => {
  const pool = new DiskPool();
  const removals = ['one', 'two', 'three'].map((name) => pool.unlink('/nonexistent', name));
  const settled = Promise.allSettled(removals);
  await pool.close();
  const [, ...others] = await settled;
  t.deepEqual(
    others.map((end) => end.status === 'rejected' && (end.reason as Error).message),
    ['the pool has been closed', 'the pool has been closed'],
  );
  await t.throwsAsync(pool.unlink('/nonexistent', 'four'), { code: 'ENOENT' });
  await pool.close();
});
