/** Tasks whose shim dies while the daemon has no descriptor left: they are taken away when it has some. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { binary, listen, nothingLeft, options, proper, start } from './fake-shim.ts';
import { makeRig } from './rig.ts';

/** Sets how many descriptors this process may have; made beforehand, since a program cannot be started without any. */
async function limiter(t: ExecutionContext): Promise<(files: number) => Promise<void>> {
  const script = `while read files; do prlimit --pid ${process.pid} --nofile=$files: && echo done; done`;
  const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const limit = async (files: number): Promise<void> => {
    child.stdin.write(`${files}\n`);
    if ((await lines.next()).value !== 'done') throw new Error(`no limit of ${files} descriptors could be set`);
  };
  t.teardown(async () => {
    await limit(1024);
    const ended = once(child, 'exit');
    child.stdin.end();
    await ended;
  });
  return limit;
}

test.serial(
  'with no descriptor left the shim that died is not taken for ended, and its task goes when there is one',
  async (t) => {
    const rig = await makeRig(t, { shutdown: 200 });
    const limit = await limiter(t);
    const path = join(rig.directory, 'shim.sock');
    const shim = await listen(t, path, proper);
    const manager = start(t, rig);
    const task = await manager.create(options(binary(rig, `echo unix://${path}`)));
    const told = Promise.withResolvers<void>();
    const { warn } = rig.host.log;
    rig.host.log.warn = (message, fields) => {
      warn(message, fields);
      if (message === 'cleaning up after a dead shim') told.resolve();
    };
    // No number is free below it.
    await limit(3);
    shim.close();
    await told.promise;
    let gone = false;
    void task.ended.then(() => {
      gone = true;
    });
    // Long enough for everything that does not wait.
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    t.false(gone);
    await limit(1024);
    t.is((await task.ended)?.exitStatus, 137);
    t.deepEqual(await manager.list('fake'), []);
    nothingLeft(t, rig);
  },
);
