import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure, type StartedProcess } from 'troupe/plugin';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { mkfifo, mountsBelow } from 'troupe/sys';
import { Bundle } from './bundle.ts';
import type { CreateOptions } from './creation.ts';
import { TaskManager } from './manager.ts';
import type { TasksHost } from './host.ts';
import { makeRig, type Rig, shimsOf, specOf, whyNoContainers } from './rig.ts';
import { resolveShimBinary } from './shim-binary.ts';
import { startShim } from './shim-process.ts';
import type { Task } from './task.ts';

const reason = whyNoContainers();
const real = reason === undefined ? test.serial : test.serial.skip;
const title = (text: string): string => (reason === undefined ? text : `${text} (skipped: ${reason})`);
const limit = { timeout: 20_000 } as const;

/** A namespace of this process, since cgroups and runc's state are shared by all on the machine. */
const ns = `tasks-test-${process.pid}`;

function start(t: ExecutionContext, rig: Rig): TaskManager {
  const manager = new TaskManager(rig.host);
  rig.onExit = (namespace, event) => manager.exits.note({ namespace, event });
  manager.exits.watching = true;
  manager.activate(undefined);
  t.teardown(() => manager.stop());
  return manager;
}

function options(rig: Rig, id: string, args: readonly string[], more: Partial<CreateOptions> = {}): CreateOptions {
  const rootfs = rig.rootfs();
  return {
    namespace: ns,
    id,
    spec: specOf('rootfs', ns, id, args),
    runtime: 'io.containerd.runc.v2',
    runtimeOptions: undefined,
    taskOptions: undefined,
    rootfs: [{ type: 'bind', source: rootfs, target: '', options: ['rbind', 'rw'] }],
    stdin: '',
    stdout: '',
    stderr: '',
    terminal: false,
    checkpoint: '',
    ...limit,
    ...more,
  };
}

async function run(manager: TaskManager, given: CreateOptions): Promise<Task> {
  const task = await manager.create(given);
  await task.connection.call('start', { id: given.id, execId: '' }, limit);
  return task;
}

async function stopAndDelete(manager: TaskManager, task: Task): Promise<void> {
  const waited = task.connection.call('wait', { id: task.id, execId: '' }, { timeout: 'none' });
  await manager.kill(task, { execId: '', signal: 9, all: false }, limit);
  await waited;
  await manager.delete(ns, task.id, limit);
}

/** Stops a process and sees that all of its threads have. */
async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const states = (): string[] =>
    readdirSync(`/proc/${pid}/task`).map(
      (thread) => readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').replace(/.*\) /s, '')[0]!,
    );
  while (states().some((state) => state !== 'T')) await new Promise((resolve) => setImmediate(resolve));
}

/** Nothing on disk, no mount and no process of the rig is left. */
function nothingLeft(t: ExecutionContext, rig: Rig, id: string): void {
  t.false(existsSync(join(rig.host.state, ns, id)));
  t.false(existsSync(join(rig.host.root, ns, id)));
  t.deepEqual(mountsBelow(rig.directory), []);
  t.deepEqual(shimsOf(rig.host.daemon.address), []);
  t.false(existsSync(`/run/containerd/runc/${ns}/${id}`));
}

real(title('a container from create to delete'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const task = await manager.create(options(rig, 'life', ['sh', '-c', 'exit 3']));
  t.true(task.pid > 1);
  const bundle = join(rig.host.state, ns, 'life');
  for (const name of ['config.json', 'rootfs', 'work', 'log', 'shim-binary-path', 'address'])
    t.true(existsSync(join(bundle, name)), name);
  const waited = task.connection.call('wait', { id: 'life', execId: '' }, { timeout: 'none' });
  t.is((await task.connection.call('state', { id: 'life', execId: '' }, limit)).status, Status.CREATED);
  await task.connection.call('start', { id: 'life', execId: '' }, limit);
  t.is((await waited).exitStatus, 3);
  const again = await t.throwsAsync(manager.create(options(rig, 'life', ['true'])), { instanceOf: Failure });
  t.is(again.message, 'task life: already exists');
  const deleted = await manager.delete(ns, 'life', limit);
  t.is(deleted.exitStatus, 3);
  t.is(deleted.pid, task.pid);
  nothingLeft(t, rig, 'life');
  const missing = await t.throwsAsync(manager.find(ns, 'life'), { instanceOf: Failure });
  t.is(missing.message, 'task life not found: not found');
  await rig.event((event) => event.topic === '/tasks/delete');
  t.deepEqual(
    rig.events.map(({ topic, from }) => `${from} ${topic}`),
    ['shim /tasks/create', 'shim /tasks/start', 'shim /tasks/exit', 'shim /tasks/delete'],
  );
});

real(title('exec, pids, pause, resume, stats and close'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const task = await run(manager, options(rig, 'busy', ['sleep', '1000']));
  const { connection: shim, id } = task;
  const spec = Any.fromPartial({
    typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
    value: Buffer.from(
      JSON.stringify({ user: { uid: 0, gid: 0 }, args: ['sh', '-c', 'exit 7'], env: ['PATH=/bin'], cwd: '/' }),
    ),
  });
  await shim.call('exec', { id, execId: 'e1', terminal: false, stdin: '', stdout: '', stderr: '', spec }, limit);
  const waited = shim.call('wait', { id, execId: 'e1' }, { timeout: 'none' });
  await shim.call('start', { id, execId: 'e1' }, limit);
  t.is((await waited).exitStatus, 7);
  await shim.call('delete', { id, execId: 'e1' }, limit);
  const missing = await t.throwsAsync(shim.call('state', { id, execId: 'e1' }, limit), { instanceOf: Failure });
  t.is(missing.message, 'process does not exist e1: not found');
  t.deepEqual(
    (await shim.call('pids', { id }, limit)).processes.map((process) => process.pid),
    [task.pid],
  );
  await shim.call('pause', { id }, limit);
  t.is((await shim.call('state', { id, execId: '' }, limit)).status, Status.PAUSED);
  const twice = await t.throwsAsync(shim.call('pause', { id }, limit), { instanceOf: Failure });
  t.is(twice.message, 'cannot pause a paused container: unknown');
  await shim.call('resume', { id }, limit);
  t.regex((await shim.call('stats', { id }, limit)).stats?.typeUrl ?? '', /^io\.containerd\.cgroups\.v[12]\.Metrics$/);
  await shim.call('closeIO', { id, execId: '', stdin: true }, limit);
  const running = await t.throwsAsync(manager.delete(ns, id, limit), { instanceOf: Failure });
  t.is(running.message, 'cannot delete a running process: unknown');
  t.true((await manager.list(ns)).includes(task));
  await stopAndDelete(manager, task);
  nothingLeft(t, rig, id);
});

real(title('a program that is not there fails Create with the words of runc, and leaves nothing'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const failure = await t.throwsAsync(manager.create(options(rig, 'missing', ['/bin/missing'])), {
    instanceOf: Failure,
  });
  t.is((failure as Failure).code, 'Unknown');
  t.regex(
    failure.message,
    /^failed to create shim task: OCI runtime create failed: runc create failed: .*exec: "\/bin\/missing": stat \/bin\/missing: no such file or directory: unknown$/,
  );
  nothingLeft(t, rig, 'missing');
});

real(title('a shim that is killed: exit 137 and delete once, everything cleaned up'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const task = await run(manager, options(rig, 'orphan', ['sleep', '1000']));
  const waited = task.connection.call('wait', { id: 'orphan', execId: '' }, { timeout: 'none' });
  const [pid] = shimsOf(rig.host.daemon.address);
  process.kill(pid!, 'SIGKILL');
  await t.throwsAsync(waited, { message: /ttrpc: closed/ });
  const exit = await task.ended;
  t.is(exit?.exitStatus, 137);
  t.is(exit?.pid, task.pid);
  await rig.event((event) => event.topic === '/tasks/delete');
  t.is(rig.events.filter((event) => event.topic === '/tasks/exit').length, 1);
  t.is(rig.events.filter((event) => event.topic === '/tasks/delete').length, 1);
  nothingLeft(t, rig, 'orphan');
  t.false(existsSync(`/proc/${task.pid}/exe`));
});

real(title('containers outlive the daemon: a new manager finds them and their exits arrive'), async (t) => {
  const rig = await makeRig(t);
  const before = new TaskManager(rig.host);
  before.activate(undefined);
  const first = await run(before, options(rig, 'first', ['sleep', '1000']));
  await run(before, options(rig, 'second', ['sleep', '1000']));
  before.stop();
  const after = start(t, rig);
  const found = await after.find(ns, 'first');
  t.is(found.pid, first.pid);
  t.is((await after.list(ns)).length, 2);
  await stopAndDelete(after, found);
  await stopAndDelete(after, await after.find(ns, 'second'));
  await rig.event((event) => event.topic === '/tasks/exit' && event.exit?.id === 'second');
  t.is(rig.events.filter((event) => event.topic === '/tasks/exit').length, 2);
  nothingLeft(t, rig, 'first');
  nothingLeft(t, rig, 'second');
});

real(title('a shim that died with the daemon is cleaned up at the next start, and its exit told'), async (t) => {
  const rig = await makeRig(t);
  const before = new TaskManager(rig.host);
  before.activate(undefined);
  const task = await run(before, options(rig, 'lost', ['sleep', '1000']));
  before.stop();
  process.kill(shimsOf(rig.host.daemon.address)[0]!, 'SIGKILL');
  const after = start(t, rig);
  await after.loaded();
  const { exit } = await rig.event((event) => event.topic === '/tasks/exit');
  t.is(exit?.exitStatus, 137);
  t.is(exit?.pid, task.pid);
  await t.throwsAsync(after.find(ns, 'lost'));
  nothingLeft(t, rig, 'lost');
});

real(
  title('a task that stopped while the daemon was dead stays, and its exit is published when it is deleted'),
  async (t) => {
    const rig = await makeRig(t);
    const before = new TaskManager(rig.host);
    before.activate(undefined);
    const task = await run(before, options(rig, 'stopped', ['sleep', '1000']));
    const waited = task.connection.call('wait', { id: 'stopped', execId: '' }, { timeout: 'none' });
    await rig.hangUp();
    process.kill(task.pid, 'SIGKILL');
    await waited;
    before.stop();
    const after = start(t, rig);
    const found = await after.find(ns, 'stopped');
    t.is((await found.connection.call('state', { id: 'stopped', execId: '' }, limit)).exitStatus, 137);
    await after.delete(ns, 'stopped', limit);
    t.deepEqual(
      rig.events.filter((event) => event.topic === '/tasks/exit').map(({ from, exit }) => [from, exit?.exitStatus]),
      [['daemon', 137]],
    );
    nothingLeft(t, rig, 'stopped');
    await rig.answer();
  },
);

real(title('an exit that its shim could not publish before its task is deleted is published here'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const task = await run(manager, options(rig, 'untold', ['sleep', '1000']));
  await rig.hangUp();
  await stopAndDelete(manager, task);
  t.deepEqual(
    rig.events.filter((event) => event.topic === '/tasks/exit').map(({ from, exit }) => [from, exit?.exitStatus]),
    [['daemon', 137]],
  );
  await rig.answer();
});

real(title('a shim that is stopped answers State in its time; SIGKILL of its container ends it'), async (t) => {
  const rig = await makeRig(t);
  const manager = start(t, rig);
  const task = await run(manager, options(rig, 'frozen', ['sleep', '1000']));
  const other = await run(manager, options(rig, 'other', ['sleep', '1000']));
  await freeze(task.shimPid!.pid);
  const failure = await t.throwsAsync(task.connection.call('state', { id: 'frozen', execId: '' }, { timeout: 300 }), {
    instanceOf: Failure,
  });
  t.is((failure as Failure).code, 'DeadlineExceeded');
  t.is((await other.connection.call('state', { id: 'other', execId: '' }, limit)).status, Status.RUNNING);
  await manager.kill(task, { execId: '', signal: 9, all: false }, limit);
  t.is((await task.ended)?.exitStatus, 137);
  await stopAndDelete(manager, other);
  nothingLeft(t, rig, 'frozen');
});

real(title('a generation that is let go keeps its connections, and can take over again'), async (t) => {
  const rig = await makeRig(t);
  const first = start(t, rig);
  const task = await run(first, options(rig, 'moved', ['sleep', '1000']));
  const waited = task.connection.call('wait', { id: 'moved', execId: '' }, { timeout: 'none' });
  const state = first.suspend();
  const second = new TaskManager(rig.host);
  second.activate(structuredClone(state));
  const same = await second.find(ns, 'moved');
  t.is(same.pid, task.pid);
  second.stop();
  first.activate(undefined);
  await first.kill(task, { execId: '', signal: 9, all: false }, limit);
  t.is((await waited).exitStatus, 137);
  await first.delete(ns, 'moved', limit);
  nothingLeft(t, rig, 'moved');
  t.deepEqual(readdirSync(rig.host.state), [ns]);
});

real(title('a task that one generation still makes while the next takes over is the next one’s'), async (t) => {
  const rig = await makeRig(t);
  const first = start(t, rig);
  const making = first.create(options(rig, 'between', ['sleep', '1000']));
  const second = new TaskManager(rig.host);
  second.activate(structuredClone(first.suspend()));
  t.teardown(() => second.stop());
  const made = await making;
  const found = await second.find(ns, 'between');
  t.is(found.pid, made.pid);
  t.true((await second.list(ns)).includes(found));
  first.stop();
  await found.connection.call('start', { id: 'between', execId: '' }, limit);
  await stopAndDelete(second, found);
  nothingLeft(t, rig, 'between');
});

real(
  title('a shim that was started and never given its task is ended at the next start, without an event'),
  async (t) => {
    const rig = await makeRig(t);
    const bundle = new Bundle(rig.host.state, rig.host.root, ns, 'leaked');
    await bundle.create(specOf('rootfs', ns, 'leaked', ['true']));
    const binary = resolveShimBinary('io.containerd.runc.v2', process.env.PATH ?? '', '/bin/false');
    await bundle.writeBinary(binary);
    mkfifo(join(bundle.path, 'log'), 0o700);
    const started: StartedProcess[] = [];
    const host: TasksHost = {
      ...rig.host,
      starting(start) {
        const each = start();
        started.push(each);
        return each;
      },
    };
    await startShim(host, { namespace: ns, id: 'leaked', bundle: bundle.path, binary }, new Uint8Array(0));
    // The kernel has to know of it: when this thread dies, nobody else waits for the child.
    t.is(started.length, 1);
    await started[0]?.exited;
    t.is(shimsOf(rig.host.daemon.address).length, 1);
    const manager = start(t, rig);
    await manager.loaded();
    await t.throwsAsync(manager.find(ns, 'leaked'), { message: 'task leaked not found: not found' });
    t.deepEqual(rig.events, []);
    nothingLeft(t, rig, 'leaked');
  },
);

real(title('a shim that died before it wrote its address is found by the name of its socket'), async (t) => {
  const rig = await makeRig(t);
  const before = new TaskManager(rig.host);
  before.activate(undefined);
  const task = await run(before, options(rig, 'nameless', ['sleep', '1000']));
  before.stop();
  rmSync(join(rig.host.state, ns, 'nameless/address'));
  const after = start(t, rig);
  const found = await after.find(ns, 'nameless');
  t.is(found.pid, task.pid);
  await stopAndDelete(after, found);
  nothingLeft(t, rig, 'nameless');
});
