/** Somebody changes the tree while a layer is extracted into it: entries may land elsewhere inside the root, or fail, but never outside. */

import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, entry } from '../tar/craft.ts';
import { canary, scratch, unpack } from './scratch.ts';

/** Swaps a directory and a link that leads out of the root, as fast as it can, until it is told to stop. */
const swapper = `
  const { a, b, control, sys } = require('node:worker_threads').workerData;
  const flags = new Int32Array(control);
  import(sys).then(({ AT_FDCWD, RENAME_EXCHANGE, renameat2 }) => {
    for (; Atomics.load(flags, 0) === 0; Atomics.add(flags, 1, 1)) renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
  });
`;

test('a directory and a link out of the root change places all the while', async (t) => {
  const { path, root } = scratch(t);
  const untouched = canary(path);
  mkdirSync(join(root, 'd/e'), { recursive: true });
  symlinkSync('../etc', join(root, 'evil'));
  const control = new SharedArrayBuffer(8);
  const flags = new Int32Array(control);
  const workerData = { a: join(root, 'd'), b: join(root, 'evil'), control, sys: import.meta.resolve('troupe/sys') };
  const worker = new Worker(swapper, { eval: true, workerData });
  const exit = new Promise((resolve) => worker.once('exit', resolve));
  while (Atomics.load(flags, 1) === 0) await new Promise((resolve) => setImmediate(resolve));

  let failed = 0;
  for (let round = 0; round < 200; round++) {
    const entries = Array.from({ length: 50 }, (_, i) => [
      entry({ name: `d/passwd`, body: 'hacked', mode: 0o777 }),
      entry({ name: `d/e/f${i}`, body: 'x' }),
      entry({ name: `evil/shadow`, body: 'hacked' }),
      entry({ name: 'd/hard', type: '1', link: 'evil/passwd', mode: 0o777 }),
      entry({ name: `d/.wh.passwd` }),
      entry({ name: 'evil/passwd', type: '5', mode: 0o700 }),
    ]);
    try {
      await unpack(root, archive(...entries.flat()));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      failed++;
    }
  }
  Atomics.store(flags, 0, 1);
  await exit;
  t.true(untouched(), 'something outside the root changed');
  t.log(`${Atomics.load(flags, 1)} swaps, ${failed} of 200 layers failed`);
});
