import { Worker } from 'node:worker_threads';
import test from 'ava';
import { Utilization } from './utilization.ts';
import type { WorkerHandle } from './worker-handle.ts';

test('what a worker did an hour ago does not show in what it does now', async (t) => {
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
     parentPort.on('message', (ms) => { for (const end = performance.now() + ms; performance.now() < end; ); parentPort.postMessage('done'); });`,
    { eval: true },
  );
  t.teardown(() => worker.terminate());
  await new Promise((resolve) => worker.once('online', resolve));
  const handle = { worker, gone: false } as unknown as WorkerHandle;
  const utilization = new Utilization(() => [handle]);
  const work = (ms: number) =>
    new Promise((resolve) => {
      worker.once('message', resolve);
      worker.postMessage(ms);
    });
  await work(5);
  utilization.sample();
  await work(300);
  utilization.sample();
  const busy = utilization.of(handle);
  await new Promise((resolve) => setTimeout(resolve, 300));
  utilization.sample();
  t.true(utilization.of(handle) < busy);
  const sinceStart = worker.performance.eventLoopUtilization().utilization;
  t.true(utilization.of(handle) < sinceStart);
});
