import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { DiskPool } from './disk-pool.ts';

// A thread that is terminated while koffi loads takes the process with it (kernel/sys/libc.ts): this file would end with SIGABRT within some twenty rounds.
test('a pool is closed at any moment of its threads’ start, and the process lives on', async (t) => {
  const fd = openSync('/', 'r');
  let startMs = 0;
  for (let round = 0; round < 24; round++) {
    const pool = new DiskPool();
    const began = performance.now();
    const work = [pool.sync(fd), pool.measure('/proc/self/task'), pool.unlink('/nonexistent', 'none')];
    const settled = Promise.allSettled(work);
    // How long a start takes is the machine's; the first has to load what the others find compiled.
    if (round < 2) {
      await work[0];
      startMs = performance.now() - began;
    } else await sleep(startMs * (0.5 + round / 32));
    await pool.close();
    await settled;
  }
  closeSync(fd);
  t.pass();
});

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
