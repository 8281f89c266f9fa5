import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import * as sys from './index.ts';

const index = new URL('./index.ts', import.meta.url).href;

/** Runs `body` in a worker, where `sys` and `fs` are; its value comes back. */
function inWorker(body: string): Promise<unknown> {
  const code = `
    const { parentPort } = require('node:worker_threads');
    const fs = require('node:fs');
    const run = async (sys) => { ${body} };
    import('${index}').then(run).then((value) => parentPort.postMessage(value));`;
  return new Promise((resolve, reject) => {
    const worker = new Worker(code, { eval: true });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

test('gettid is the process in the main thread, and another number in a worker', async (t) => {
  t.is(sys.gettid(), process.pid);
  const tid = await inWorker('return sys.gettid();');
  t.is(typeof tid, 'number');
  t.not(tid, process.pid);
});

test('a thread lowers its own priority and nobody else’s', async (t) => {
  const before = sys.threadPriority();
  const result = await inWorker(`
    sys.setThreadPriority(11);
    const stat = fs.readFileSync('/proc/self/task/' + sys.gettid() + '/stat', 'latin1');
    return [sys.threadPriority(), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16])];`);
  t.deepEqual(result, [11, 11]);
  t.is(sys.threadPriority(), before);
});

test('a thread in the background: its niceness, and the slice where the kernel shows it', async (t) => {
  const [nice, slice] = (await inWorker(`
    sys.setBackground(6, 20);
    const sched = fs.readFileSync('/proc/self/task/' + sys.gettid() + '/sched', 'latin1');
    return [sys.threadPriority(), Number(/^se\\.slice +: +(\\d+)/m.exec(sched)?.[1])];`)) as [number, number];
  t.is(nice, 6);
  // Linux 6.12 and later.
  if (!Number.isNaN(slice)) t.is(slice, 20_000_000);
});

test('a thread has a name of at most 15 bytes', async (t) => {
  const result = await inWorker(`
    sys.setThreadName('snapshots-and-more');
    return fs.readFileSync('/proc/self/task/' + sys.gettid() + '/comm', 'utf8');`);
  t.is(result, 'snapshots-and-m\n');
  t.not(readFileSync('/proc/self/comm', 'utf8'), 'snapshots-and-m\n');
});

test('a worker may have a umask of its own, once it shares none', async (t) => {
  const result = await inWorker(`
    let refused = 'no';
    try { sys.umask(0); } catch (error) { refused = error.code; }
    sys.unshareFs();
    sys.unshareFs();
    const before = sys.umask(0);
    const root = fs.mkdtempSync(require('node:os').tmpdir() + '/sys-thread-');
    sys.mkdirat(sys.AT_FDCWD, root + '/exact', 0o2777);
    fs.mkdirSync(root + '/node', { mode: 0o777 });
    const modes = ['exact', 'node'].map((name) => fs.statSync(root + '/' + name).mode & 0o7777);
    await fs.promises.mkdir(root + '/pool', { mode: 0o777 });
    modes.push(fs.statSync(root + '/pool').mode & 0o7777);
    fs.rmSync(root, { recursive: true });
    return { refused, before, modes };`);
  const umask = process.umask();
  t.is(umask, 0o022, 'this test is run with the usual umask');
  // mkdir drops set-group-ID from the mode it is asked for; promises run in libuv's pool, which keeps the umask of the process.
  t.deepEqual(result, { refused: 'EPERM', before: 0o022, modes: [0o777, 0o777, 0o755] });
});

test('in the main thread the umask is the whole process’s, and it is never unshared', (t) => {
  t.throws(() => sys.unshareFs(), { code: 'EINVAL' });
  const script = `import('${index}').then((sys) => { process.umask(0o22); console.log(sys.umask(0o27), process.umask()); })`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  t.is(child.stdout, '18 23\n', child.stderr);
});
