/** Shims that a restarted manager finds: they answer late, or not at all, or know nothing of their task. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { mkfifo } from 'troupe/sys';
import { binary, listen, never, nothingLeft, options, proper, start } from './fake-shim.ts';
import { makeRig } from './rig.ts';

test('a shim of version 3 is asked as such, and as version 2 when it does not know that', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const services: string[] = [];
  const path = join(rig.directory, 'v3.sock');
  await listen(t, path, async (call) => {
    services.push(`${call.service}/${call.method}`);
    if (call.service === 'containerd.task.v3.Task')
      throw new Failure('Unimplemented', 'service containerd.task.v3.Task');
    return proper(call);
  });
  const manager = start(t, rig);
  await manager.create(options(binary(rig, `echo '{"version":3,"address":"unix://${path}","protocol":"ttrpc"}'`)));
  t.true(services.includes('containerd.task.v3.Task/Create'));
  t.true(services.includes('containerd.task.v2.Task/Create'));
  t.true(existsSync(join(rig.host.state, 'fake/web/bootstrap.json')));
  manager.stop();
  const again = start(t, rig);
  t.is((await again.find('fake', 'web')).pid, 4242);
  t.is((await again.delete('fake', 'web', { timeout: 5000 })).exitStatus, 5);
});

test('a silent shim is a suspect and no obstacle: others load, it is asked again, and answers in the end', async (t) => {
  const rig = await makeRig(t, { load: 1500, state: 100, shutdown: 200 });
  const [slow, good] = [join(rig.directory, 'slow.sock'), join(rig.directory, 'good.sock')];
  let answer = proper;
  await listen(t, slow, (call) => answer(call));
  await listen(t, good, proper);
  const before = start(t, rig);
  await before.create(options(binary(rig, `echo unix://${slow}`)));
  await before.create(options(binary(rig, `echo unix://${good}`), { id: 'other' }));
  before.stop();
  answer = never;
  const manager = start(t, rig);
  t.is((await manager.find('fake', 'other')).condition, 'running');
  const suspect = await manager.find('fake', 'web');
  t.is(suspect.condition, 'suspect');
  t.is((await manager.list('fake')).length, 2);
  answer = proper;
  await new Promise<void>((resolve) => {
    const { info } = rig.host.log;
    rig.host.log.info = (message, fields) => {
      info(message, fields);
      if (message === 'shim answers again') resolve();
    };
  });
  t.is(suspect.condition, 'running');
  t.is(suspect.pid, 4242);
});

test('a shim that goes away between two questions is buried', async (t) => {
  const rig = await makeRig(t, { load: 1500, shutdown: 200 });
  const path = join(rig.directory, 'gone.sock');
  let answer = proper;
  const server = await listen(t, path, (call) => answer(call));
  const before = start(t, rig);
  const shim = binary(rig, `echo unix://${path}`);
  await before.create(options(shim));
  before.stop();
  answer = async (call) => (call.method === 'State' ? never(call) : proper(call));
  const manager = start(t, rig);
  const suspect = await manager.find('fake', 'web');
  t.is(suspect.condition, 'suspect');
  answer = async () => {
    throw new Failure('Unimplemented', 'no such service');
  };
  server.close();
  const exit = await suspect.ended;
  t.is(exit?.exitStatus, 137);
  t.true(existsSync(`${shim}.deleted`));
  nothingLeft(t, rig);
});

test('a shim that has no such task after a start is ended without an event', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'empty.sock');
  let answer = proper;
  await listen(t, path, (call) => answer(call));
  const before = start(t, rig);
  await before.create(options(binary(rig, `echo unix://${path}`)));
  before.stop();
  const asked: string[] = [];
  answer = async (call) => {
    asked.push(call.method);
    if (call.method === 'State') throw new Failure('NotFound', 'container not created');
    if (call.method === 'Shutdown') server.close();
    return proper(call);
  };
  const server = await listen(t, `${path}.unused`, never);
  const manager = start(t, rig);
  await t.throwsAsync(manager.find('fake', 'web'), { message: 'task web not found: not found' });
  t.true(asked.includes('Shutdown'));
  t.deepEqual(rig.events, []);
  nothingLeft(t, rig);
});

test('a Create that a shim reads after it has said that it has no task is let end, and taken away', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'late.sock');
  const made = join(rig.directory, 'made');
  let answer = proper;
  await listen(t, path, (call) => answer(call));
  const before = start(t, rig);
  // Its delete says what it found.
  const shim = binary(rig, `echo unix://${path}`);
  writeFileSync(shim, readFileSync(shim, 'utf8').replace('delete)', `delete) cat ${made} >> ${shim}.found;`));
  await before.create(options(shim));
  before.stop();
  const bundle = join(rig.host.state, 'fake/web');
  let runtime: ChildProcess | undefined;
  answer = async (call) => {
    if (call.method === 'State') throw new Failure('NotFound', 'container not created');
    if (call.method === 'Shutdown') {
      const script = `read -r line < ${bundle}/go; echo made > ${made}`;
      mkfifo(join(bundle, 'go'), 0o600);
      runtime = spawn('sh', ['-c', script, 'runtime', '--bundle', bundle], { stdio: 'ignore' });
      setTimeout(() => writeFileSync(join(bundle, 'go'), 'on\n'), 100);
    }
    return proper(call);
  };
  const manager = start(t, rig);
  await t.throwsAsync(manager.find('fake', 'web'), { message: 'task web not found: not found' });
  t.is(readFileSync(`${shim}.found`, 'utf8'), 'made\n', 'what there was when it was deleted');
  t.is(runtime?.exitCode ?? 0, 0, 'it was not killed');
  nothingLeft(t, rig);
});
