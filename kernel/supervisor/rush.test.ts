import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { needing } from '../../test/helpers/privilege.ts';
import { gettid } from '../sys/thread.ts';
import { rush } from './rush.ts';

const rootTest = needing('root').serial;
const SCHED_OTHER = 0;
const SCHED_RR = 2;

/** proc_pid_stat(5): field 41, counted behind the name, which may hold anything. */
function policyOf(thread: number): number {
  const text = readFileSync(`/proc/${thread}/stat`, 'utf8');
  return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[41 - 3]) & 0xff;
}

/** Another thread, and its id as Linux counts. */
async function another(t: { teardown(work: () => unknown): void }): Promise<number> {
  const code = `const { parentPort } = require('node:worker_threads');
    parentPort.postMessage(Number(require('node:fs').readlinkSync('/proc/thread-self').split('/').at(-1)));
    parentPort.on('message', () => {});`;
  const worker = new Worker(code, { eval: true });
  t.teardown(() => worker.terminate());
  const [thread] = (await once(worker, 'message')) as [number];
  return thread;
}

rootTest(
  'threads that are waited for run before all others for as long as it lasts, and the calling one with them',
  async (t) => {
    const thread = await another(t);
    const policies = () => [policyOf(thread), policyOf(gettid())];
    t.deepEqual(policies(), [SCHED_OTHER, SCHED_OTHER]);
    const [first, second] = [rush([thread, 0]), rush([])];
    t.deepEqual(policies(), [SCHED_RR, SCHED_RR]);
    first();
    first();
    t.deepEqual(policies(), [SCHED_OTHER, SCHED_RR], 'another rush goes on');
    second();
    t.deepEqual(policies(), [SCHED_OTHER, SCHED_OTHER]);
  },
);

rootTest('what is started meanwhile is as all others are', async (t) => {
  const end = rush([]);
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  end();
  t.is(policyOf(child.pid!), SCHED_OTHER);
  child.kill();
  await once(child, 'exit');
});

rootTest('it ends by itself', async (t) => {
  const thread = await another(t);
  const began = performance.now();
  t.teardown(rush([thread]));
  while (policyOf(thread) === SCHED_RR && performance.now() - began < 10_000) await new Promise(setImmediate);
  t.is(policyOf(thread), SCHED_OTHER);
});

test('a thread that has ended takes nobody along', (t) => {
  t.notThrows(() => rush([2 ** 22 + 1])());
});
