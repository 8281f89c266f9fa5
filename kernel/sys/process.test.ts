import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import * as sys from './index.ts';

/** Whether the process is a zombie of ours: ended and not reaped. Polled, since a stranger's end has no event. */
async function ended(pid: number): Promise<void> {
  for (;;) {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    if (stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')) return;
    await delay(5);
  }
}

/**
 * A grandchild whose parent ends at once, so that it becomes ours: we are its subreaper, and Node knows nothing of it. It does nothing before `release`, or its
 * parent's shell might reap it.
 */
async function orphan(script: string): Promise<{ pid: number; release(): void }> {
  const parent = spawn('sh', ['-c', `(exec sh -c 'read x <&3; ${script}') & echo $!`], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  const exit = once(parent, 'exit');
  const [line] = (await once(createInterface(parent.stdout as Readable), 'line')) as [string];
  await exit;
  const gate = parent.stdio[3] as Writable;
  // One that is killed first leaves nobody to read what would open it.
  gate.on('error', () => {});
  return { pid: Number(line), release: () => gate.end('\n') };
}

test.serial('a subreaper reaps orphans by pid, with their code or signal', async (t) => {
  t.false(sys.isChildSubreaper());
  sys.setChildSubreaper(true);
  t.true(sys.isChildSubreaper());
  try {
    const first = await orphan('exit 7');
    t.is(sys.waitpid(first.pid), undefined);
    first.release();
    await ended(first.pid);
    t.deepEqual(sys.waitpid(first.pid), { code: 7, signal: undefined });
    t.is(sys.waitpid(first.pid), 'none');
    const second = await orphan('exit 0');
    process.kill(second.pid, 'SIGKILL');
    await ended(second.pid);
    second.release();
    t.deepEqual(sys.waitpid(second.pid), { code: undefined, signal: constants.signals.SIGKILL });
  } finally {
    sys.setChildSubreaper(false);
  }
});

test('waitpid takes one pid, never a group or any', (t) => {
  for (const pid of [-1, 0, 1.5, Number.NaN]) t.throws(() => sys.waitpid(pid), { code: 'EINVAL' });
  t.is(sys.waitpid(1), 'none');
});

test("a pidfd is one process's, and there is none for a pid that is free", async (t) => {
  const child: ChildProcess = spawn('sleep', ['600']);
  const pid = child.pid ?? 0;
  const fd = sys.pidfdOpen(pid);
  t.regex(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), new RegExp(`^Pid:\\s${pid}$`, 'm'));
  t.true(sys.isCloseOnExec(fd));
  child.kill('SIGKILL');
  await once(child, 'exit');
  t.regex(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^Pid:\s-1$/m);
  t.throws(() => sys.pidfdOpen(pid), { code: 'ESRCH' });
  sys.close(fd);
});

test.serial('the signal at the death of the parent', async (t) => {
  const index = new URL('./index.ts', import.meta.url).href;
  // The child asks for SIGKILL, tells us so, and would run for ever; its parent then ends.
  const child = `import('${index}').then((sys) => { sys.setParentDeathSignal(9); console.log(process.pid); setInterval(() => {}, 1e6); })`;
  const parent = `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: 'inherit' })`;
  const middle = spawn(process.execPath, ['-e', parent], { stdio: ['ignore', 'pipe', 'inherit'] });
  const closed = once(middle, 'close');
  try {
    const [line] = (await once(createInterface(middle.stdout), 'line')) as [string];
    t.regex(line, /^\d+$/);
  } finally {
    middle.kill('SIGKILL');
  }
  // The grandchild holds the other end of our pipe, and would for ever.
  await closed;
});
