import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
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

/** A grandchild whose parent ends at once, so that it becomes ours: we are its subreaper, and Node knows nothing of it. */
async function orphan(script: string): Promise<number> {
  const parent = spawn('sh', ['-c', `(exec sh -c '${script}') & echo $!`], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(parent.stdout), 'line')) as [string];
  if (parent.exitCode === null) await once(parent, 'exit');
  return Number(line);
}

test.serial('a subreaper reaps orphans by pid, with their code or signal', async (t) => {
  t.false(sys.isChildSubreaper());
  sys.setChildSubreaper(true);
  t.true(sys.isChildSubreaper());
  try {
    const exits = await orphan('exit 7');
    await ended(exits);
    t.deepEqual(sys.waitpid(exits), { code: 7, signal: undefined });
    t.is(sys.waitpid(exits), 'none');
    const waits = await orphan('exec sleep 600');
    t.is(sys.waitpid(waits), undefined);
    process.kill(waits, 'SIGKILL');
    await ended(waits);
    t.deepEqual(sys.waitpid(waits), { code: undefined, signal: constants.signals.SIGKILL });
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
  const [line] = (await once(createInterface(middle.stdout), 'line')) as [string];
  const closed = once(middle, 'close');
  middle.kill('SIGKILL');
  // The grandchild holds the other end of our pipe, and would for ever.
  await closed;
  t.regex(line, /^\d+$/);
});
