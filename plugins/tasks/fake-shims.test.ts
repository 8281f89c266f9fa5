/** Shims that lie, stall and die, played by this process: their binary is a script that prints where this process listens. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import {
  ConnectResponse,
  CreateTaskResponse,
  DeleteResponse,
  StateResponse,
} from 'troupe/proto/containerd/task/v2/task.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { mkfifo } from 'troupe/sys';
import { TtrpcServer, type TtrpcServerCall } from 'troupe/ttrpc';
import type { CreateOptions } from './creation.ts';
import { TaskManager } from './manager.ts';
import { makeRig, type Rig } from './rig.ts';

const nothing = new Uint8Array(0);

function start(t: ExecutionContext, rig: Rig): TaskManager {
  const manager = new TaskManager(rig.host);
  manager.activate(undefined);
  t.teardown(() => manager.stop());
  return manager;
}

/** A shim's binary that does `onStart` (shell) when it is started; its `delete` answers `exit` and leaves a mark. */
function binary(rig: Rig, onStart: string, exit = DeleteResponse.fromPartial({ pid: 4242, exitStatus: 137 })): string {
  const path = join(rig.directory, `shim-${readdirSync(rig.directory).length}`);
  const answer = join(rig.directory, `answer-${readdirSync(rig.directory).length}`);
  writeFileSync(answer, DeleteResponse.encode(exit).finish());
  writeFileSync(
    path,
    `#!/bin/sh\nfor last; do :; done\ncase "$last" in\n  start) ${onStart} ;;\n  delete) echo deleted >> ${path}.deleted; cat ${answer} ;;\nesac\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

function options(runtime: string, more: Partial<CreateOptions> = {}): CreateOptions {
  return {
    namespace: 'fake',
    id: 'web',
    spec: Buffer.from('{}'),
    runtime,
    runtimeOptions: undefined,
    taskOptions: undefined,
    rootfs: [],
    stdin: '',
    stdout: '',
    stderr: '',
    terminal: false,
    checkpoint: '',
    timeout: 10_000,
    ...more,
  };
}

type Answer = (call: TtrpcServerCall) => Promise<Uint8Array>;

/** Listens as a shim does. */
async function listen(t: ExecutionContext, path: string, dispatch: Answer): Promise<TtrpcServer<Socket>> {
  const server = new TtrpcServer<Socket>({ dispatch });
  const listener = createServer((socket) => server.accept(socket));
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  t.teardown(async () => {
    server.close();
    await new Promise((resolve) => listener.close(resolve));
  });
  return server;
}

/** A shim that does what it should, for a container of pid 4242. */
const proper: Answer = async ({ method }) => {
  switch (method) {
    case 'Create':
      return CreateTaskResponse.encode({ pid: 4242 }).finish();
    case 'Connect':
      return ConnectResponse.encode(ConnectResponse.fromPartial({ shimPid: process.pid, taskPid: 4242 })).finish();
    case 'State':
      return StateResponse.encode(StateResponse.fromPartial({ pid: 4242, status: Status.RUNNING })).finish();
    case 'Delete':
      return DeleteResponse.encode(DeleteResponse.fromPartial({ pid: 4242, exitStatus: 5 })).finish();
    default:
      return nothing;
  }
};

const never: Answer = () => new Promise<never>(() => {});

function nothingLeft(t: ExecutionContext, rig: Rig): void {
  t.false(existsSync(join(rig.host.state, 'fake/web')));
  t.false(existsSync(join(rig.host.root, 'fake/web')));
}

const badStarts: [title: string, script: string, message: RegExp][] = [
  ['prints nothing', ':', /^failed to start shim: start failed: shim printed no address: unknown$/],
  ['prints garbage', 'echo hello', /start failed: shim printed "hello", which is no address: unknown$/],
  ['exits 1', 'echo out; echo went wrong >&2; exit 1', /start failed: out\nwent wrong\n: exit status 1: unknown$/],
  ['is killed', 'kill -9 $$', /start failed: : signal: SIGKILL: unknown$/],
  ['prints without end', 'cat /dev/zero', /printed more than 65536 bytes: resource exhausted$/],
  ['hangs', 'sleep 1000', /ran longer than 300 ms: context deadline exceeded$/],
  [
    'speaks version 99',
    `echo '{"version":99,"address":"unix:///x","protocol":"ttrpc"}'`,
    /version 99 .*: not implemented$/,
  ],
  [
    'speaks grpc',
    `echo '{"version":3,"address":"unix:///x","protocol":"grpc"}'`,
    /shim protocol "grpc": not implemented$/,
  ],
  ['listens on vsock', 'echo vsock://3:1024', /scheme vsock: not implemented$/],
  ['listens nowhere', 'echo unix:///nowhere/at/all', /nobody listens at \/nowhere\/at\/all: not found$/],
];

for (const [title, script, message] of badStarts) {
  test(`a shim that ${title} at its start fails Create, says why, and leaves nothing`, async (t) => {
    const rig = await makeRig(t, { start: title === 'hangs' ? 300 : 10_000 });
    const manager = start(t, rig);
    const failure = await t.throwsAsync(manager.create(options(binary(rig, script))), { instanceOf: Failure });
    t.regex(failure.message, message);
    nothingLeft(t, rig);
  });
}

test('the words of a failing shim are cut to their end', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const script = 'head -c 100000 /dev/zero | tr "\\\\0" x >&2; echo the end >&2; exit 3';
  const failure = await t.throwsAsync(start(t, rig).create(options(binary(rig, script))), { instanceOf: Failure });
  t.regex(failure.message, /the end\n: exit status 3: unknown$/);
  t.true(failure.message.length < 9000);
});

test('what cannot be executed is refused with the words of the system', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'not-a-program');
  writeFileSync(path, 'x');
  const failure = await t.throwsAsync(start(t, rig).create(options(path)), { instanceOf: Failure });
  t.is(failure.message, `failed to start shim: start failed: : fork/exec ${path}: permission denied: unknown`);
  nothingLeft(t, rig);
});

test('a shim that accepts and never answers costs Create its deadline, is cleaned up after, and others go on', async (t) => {
  const rig = await makeRig(t, { cleanup: 400, shutdown: 200 });
  const manager = start(t, rig);
  const silent = join(rig.directory, 'silent.sock');
  const good = join(rig.directory, 'good.sock');
  await listen(t, silent, never);
  await listen(t, good, proper);
  const shim = binary(rig, `echo unix://${silent}`);
  const stuck = manager.create(options(shim, { timeout: 300 }));
  const other = await manager.create(options(binary(rig, `echo unix://${good}`), { id: 'other' }));
  t.is(other.pid, 4242);
  const failure = await t.throwsAsync(stuck, { instanceOf: Failure });
  t.regex(
    failure.message,
    /^failed to create shim task: (containerd\.task\.v2\.Task\/Create: )?context deadline exceeded$/,
  );
  t.true(existsSync(`${shim}.deleted`));
  nothingLeft(t, rig);
});

for (const pid of [0, 1, 0xffff_ffff, process.pid]) {
  test(`a shim that claims pid ${pid === process.pid ? 'of the daemon' : pid} for its container is refused`, async (t) => {
    const rig = await makeRig(t, { shutdown: 200 });
    const path = join(rig.directory, 'liar.sock');
    await listen(t, path, async (call) =>
      call.method === 'Create' ? CreateTaskResponse.encode({ pid }).finish() : proper(call),
    );
    const failure = await t.throwsAsync(start(t, rig).create(options(binary(rig, `echo unix://${path}`))), {
      instanceOf: Failure,
    });
    t.is(failure.message, `failed to create shim task: shim claims pid ${pid} for the container: unknown`);
    nothingLeft(t, rig);
  });
}

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

test('every call of a shim carries the namespace', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const namespaces = new Set<string>();
  const path = join(rig.directory, 'ns.sock');
  await listen(t, path, async (call) => {
    namespaces.add(call.metadata.get('containerd-namespace-ttrpc')?.join() ?? '');
    return proper(call);
  });
  await start(t, rig).create(options(binary(rig, `echo unix://${path}`)));
  t.deepEqual([...namespaces], ['fake']);
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

const corruptions: [title: string, corrupt: (bundle: string, t: ExecutionContext) => void][] = [
  ['has a FIFO for its address', (bundle) => mkfifo(join(bundle, 'address'), 0o600)],
  ['has a link for its address', (bundle) => symlinkSync('/etc/passwd', join(bundle, 'address'))],
  [
    'has an address of a gigabyte',
    (bundle) => {
      writeFileSync(join(bundle, 'address'), '');
      truncateSync(join(bundle, 'address'), 2 ** 30);
    },
  ],
  [
    'has the address of another program',
    (bundle, t) => {
      const path = join(bundle, '../../other.sock');
      const other = createServer((socket) => socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'));
      other.listen(path);
      t.teardown(() => other.close());
      writeFileSync(join(bundle, 'address'), `unix://${path}`);
    },
  ],
  ['has a relative address', (bundle) => writeFileSync(join(bundle, 'address'), 'run/x.sock')],
  ['has half a bootstrap', (bundle) => writeFileSync(join(bundle, 'bootstrap.json'), '{"version":3,"addr')],
  ['has no address and no spec', () => {}],
  ['has a directory for its log', (bundle) => mkdirSync(join(bundle, 'log'))],
];

for (const [title, corrupt] of corruptions) {
  test(`a bundle that ${title} is cleaned up, and others load`, async (t) => {
    const rig = await makeRig(t, { shutdown: 200 });
    const good = join(rig.directory, 'good.sock');
    await listen(t, good, proper);
    const before = start(t, rig);
    await before.create(options(binary(rig, `echo unix://${good}`), { id: 'other' }));
    before.stop();
    const bundle = join(rig.host.state, 'fake/web');
    mkdirSync(bundle, { recursive: true });
    const shim = binary(rig, ':');
    writeFileSync(join(bundle, 'shim-binary-path'), shim);
    corrupt(bundle, t);
    const manager = start(t, rig);
    await manager.loaded();
    t.is((await manager.find('fake', 'other')).pid, 4242);
    t.true(existsSync(`${shim}.deleted`));
    nothingLeft(t, rig);
  });
}

test('a bundle in which no shim was started goes, so does what was on its way out, and work that is nobody’s', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  mkdirSync(join(rig.host.state, 'fake/web/rootfs'), { recursive: true });
  mkdirSync(join(rig.host.state, 'fake/.old/rootfs'), { recursive: true });
  mkdirSync(join(rig.host.state, '.checkpoint-abc'), { recursive: true });
  mkdirSync(join(rig.host.root, 'fake/lost'), { recursive: true });
  const manager = start(t, rig);
  await manager.swept;
  t.deepEqual(readdirSync(rig.host.state), []);
  t.deepEqual(readdirSync(rig.host.root), []);
  t.deepEqual(rig.events, []);
});

test('a bundle that got stuck on its way out goes when tasks are asked for; a checkpoint in use stays', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const manager = start(t, rig);
  await manager.swept;
  const stuck = join(rig.host.state, 'fake/.old/rootfs');
  const work = join(rig.host.root, 'fake/old');
  const checkpoint = join(rig.host.state, '.checkpoint-abc');
  for (const path of [stuck, work, checkpoint]) mkdirSync(path, { recursive: true });
  await manager.list();
  while (existsSync(join(stuck, '..')) || existsSync(work)) await setImmediate();
  t.true(existsSync(checkpoint));
});

test('two creations of one name: one comes about', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'one.sock');
  await listen(t, path, proper);
  const manager = start(t, rig);
  const shim = binary(rig, `echo unix://${path}`);
  const outcomes = await Promise.allSettled([manager.create(options(shim)), manager.create(options(shim))]);
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
  t.is(outcomes[1]?.status === 'rejected' && (outcomes[1].reason as Failure).code, 'AlreadyExists');
});

test('a client that gives up in the middle of Create leaves nothing', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'slow.sock');
  const controller = new AbortController();
  await listen(t, path, async (call) => {
    if (call.method !== 'Create') return proper(call);
    controller.abort();
    return never(call);
  });
  const creation = start(t, rig).create(options(binary(rig, `echo unix://${path}`), { signal: controller.signal }));
  const failure = await t.throwsAsync(creation, { instanceOf: Failure });
  t.is((failure as Failure).code, 'Canceled');
  nothingLeft(t, rig);
});
