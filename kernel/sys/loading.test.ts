/** Threads that end while one that they have started loads koffi: without the waiting this file ends with SIGABRT within some twenty rounds. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { loadsEnded, shareLoads } from './loading.ts';

shareLoads();
const module = (name: string): string => new URL(name, import.meta.url).href;

/** Says when it is just about to load; none of these modules does so by itself. */
const inner = `
  Promise.all(${JSON.stringify(['./libc.ts', './at.ts', './stat.ts', './mount.ts', './xattr.ts', './process.ts'].map(module))}.map((each) => import(each)))
    .then(([{ prepareSystemCalls }]) => { require('node:worker_threads').parentPort.postMessage('loading'); prepareSystemCalls(); });`;
/** Has such a thread, and does `then` when that loads. */
const outer = (then: string): Worker =>
  new Worker(
    `const { Worker, parentPort } = require('node:worker_threads');
    import('${module('./loading.ts')}').then(({ awaitLoads }) => {
      const thread = new Worker(${JSON.stringify(inner)}, { eval: true });
      thread.on('error', () => {});
      thread.once('message', () => { ${then} });
    });`,
    { eval: true },
  );

test.serial('a thread is ended when nothing is being loaded in those that it has started', async (t) => {
  for (let round = 0; round < 20; round++) {
    const worker = outer(`parentPort.on('message', () => {}); parentPort.postMessage('loading');`);
    await once(worker, 'message');
    await sleep(round % 5);
    await loadsEnded();
    t.is(await worker.terminate(), 1);
  }
});

test.serial(
  'a thread that ends by itself does so when nothing is being loaded in those that it has started',
  async (t) => {
    for (let round = 0; round < 20; round++) {
      const worker = outer(`process.once('exit', awaitLoads); setTimeout(() => process.exit(3), ${round % 5});`);
      t.deepEqual(await once(worker, 'exit'), [3]);
    }
  },
);

test.serial('a load that does not come to an end keeps nobody for long', async (t) => {
  const stuck = new Worker(
    `import('${module('./loading.ts')}').then(({ whileLoading }) => whileLoading(() => {
      require('node:worker_threads').parentPort.postMessage('loading');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    }));`,
    { eval: true },
  );
  await once(stuck, 'message');
  await loadsEnded();
  t.is(await stuck.terminate(), 1);
});
