import { constants, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Call, type Client, Failure, type Service } from 'troupe/plugin';
import { Container, type ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { CreateTaskRequest, type TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { AT_FDCWD, mkfifo, openat } from 'troupe/sys';
import { Checkpoints } from './checkpoint.ts';
import { ContainerRecords } from './container-record.ts';
import { TaskManager } from './manager.ts';
import { makeRig, type Rig, shimsOf, specOf, whyNoContainers } from './rig.ts';
import { tasksService } from './service.ts';

const reason = whyNoContainers();
const real = reason === undefined ? test.serial : test.serial.skip;
const title = (text: string): string => (reason === undefined ? text : `${text} (skipped: ${reason})`);
const ns = `tasks-service-${process.pid}`;

function callOf(namespace = ns, more: Partial<Call> = {}): Call & { readonly cursors: string[] } {
  const cursors: string[] = [];
  return {
    from: 'front',
    method: '',
    namespace,
    lease: '',
    deadline: Date.now() + 20_000,
    signal: new AbortController().signal,
    trace: '',
    cursor: (value) => void cursors.push(value),
    resume: '',
    cursors,
    ...more,
  };
}

interface Bench {
  readonly rig: Rig;
  readonly tasks: Service<typeof TasksDefinition>;
  readonly manager: TaskManager;
  /** Makes the container's record. */
  container(id: string, args: readonly string[], runtime?: string): void;
  run(id: string, args: readonly string[]): Promise<number>;
  killAndDelete(id: string): Promise<void>;
}

async function bench(t: ExecutionContext): Promise<Bench> {
  const rig = await makeRig(t);
  const manager = new TaskManager(rig.host);
  rig.onExit = (namespace, event) => manager.exits.note({ namespace, event });
  manager.exits.watching = true;
  manager.activate(undefined);
  t.teardown(() => manager.stop());
  const containers = new Map<string, Container>();
  const client = {
    get: async ({ id }: { id: string }, call: Call) => {
      const container = containers.get(id);
      if (container === undefined) {
        throw new Failure('NotFound', `container "${id}" in namespace "${call.namespace}": not found`);
      }
      return { container };
    },
  } as unknown as Client<typeof ContainersDefinition>;
  const records = new ContainerRecords(client);
  const refuse = (() => {
    throw new Failure('Unavailable', 'no such plugin here: unavailable');
  }) as never;
  const tasks = tasksService(manager, records, new Checkpoints(rig.host.state, refuse, records), rig.host.timeouts);
  const made: Bench = {
    rig,
    tasks,
    manager,
    container(id, args, runtime = 'io.containerd.runc.v2') {
      const spec = {
        typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
        value: specOf('rootfs', ns, id, args),
      };
      containers.set(id, Container.fromPartial({ id, runtime: { name: runtime }, spec }));
    },
    async run(id, args) {
      made.container(id, args);
      const rootfs = [{ type: 'bind', source: rig.rootfs(), options: ['rbind', 'rw'] }];
      await tasks.create(CreateTaskRequest.fromPartial({ containerId: id, rootfs }), callOf());
      return (await tasks.start({ containerId: id, execId: '' }, callOf())).pid;
    },
    async killAndDelete(id) {
      const waited = tasks.wait({ containerId: id, execId: '' }, callOf(ns, { deadline: 0 }));
      await tasks.kill({ containerId: id, execId: '', signal: 9, all: true }, callOf());
      await waited;
      await tasks.delete({ containerId: id }, callOf());
    },
  };
  return made;
}

async function refusal(t: ExecutionContext, work: Promise<unknown> | unknown): Promise<[string, string]> {
  const failure = (await t.throwsAsync(async () => work, { instanceOf: Failure })) as Failure;
  return [failure.code, failure.message];
}

test('who names no namespace, no identifier or nothing that exists is told which', async (t) => {
  const { tasks, container } = await bench(t);
  const start = (containerId: string, call: Call) => tasks.start({ containerId, execId: '' }, call);
  t.deepEqual(await refusal(t, start('web', callOf(''))), [
    'FailedPrecondition',
    'namespace is required: failed precondition',
  ]);
  t.is((await refusal(t, start('web', callOf('../x'))))[0], 'InvalidArgument');
  for (const id of ['', 'a/b', '../../x', 'a..b', 'x'.repeat(77), 'a\0b']) {
    t.is((await refusal(t, start(id, callOf())))[0], 'InvalidArgument', id);
    t.is(
      (await refusal(t, tasks.create(CreateTaskRequest.fromPartial({ containerId: id }), callOf())))[0],
      'InvalidArgument',
      id,
    );
  }
  t.deepEqual(await refusal(t, start('web', callOf())), [
    'NotFound',
    `container "web" in namespace "${ns}": not found`,
  ]);
  container('web', ['true']);
  t.deepEqual(await refusal(t, start('web', callOf())), ['NotFound', 'task web not found: not found']);
  t.deepEqual(await refusal(t, tasks.wait({ containerId: 'web', execId: '' }, callOf())), [
    'NotFound',
    'task web not found: not found',
  ]);
});

test('a runtime that is not there, and mounts that are not what they say', async (t) => {
  const { tasks, container } = await bench(t);
  container('web', ['true'], 'io.containerd.nope.v1');
  const create = (fields: object) =>
    tasks.create(CreateTaskRequest.fromPartial({ containerId: 'web', ...fields }), callOf());
  t.deepEqual(await refusal(t, create({})), [
    'Unknown',
    'failed to start shim: failed to resolve runtime path: runtime "io.containerd.nope.v1" binary not installed "containerd-shim-nope-v1": file does not exist: unknown',
  ]);
  t.regex((await refusal(t, create({ runtimePath: '../../bin/sh' })))[1], /invalid runtime name/);
  t.is(
    (await refusal(t, create({ rootfs: [{ type: 'bind', source: '/', options: ['ro,suid'] }] })))[0],
    'InvalidArgument',
  );
  t.is((await refusal(t, create({ stdout: '/a\0b' })))[0], 'InvalidArgument');
  t.is((await refusal(t, create({ checkpoint: { mediaType: 'text/plain' } })))[0], 'InvalidArgument');
});

real(title('a container through the service, from create to delete'), async (t) => {
  const { tasks, run, rig } = await bench(t);
  const pid = await run('life', ['sh', '-c', 'exit 3']);
  const waiting = callOf(ns, { deadline: 0 });
  t.is((await tasks.wait({ containerId: 'life', execId: '' }, waiting)).exitStatus, 3);
  t.deepEqual(waiting.cursors, ['accepted']);
  const { process } = await tasks.get({ containerId: 'life', execId: '' }, callOf());
  t.like(process, { id: 'life', pid, status: Status.STOPPED, exitStatus: 3 });
  t.deepEqual(await refusal(t, tasks.create(CreateTaskRequest.fromPartial({ containerId: 'life' }), callOf())), [
    'AlreadyExists',
    'task life: already exists',
  ]);
  t.deepEqual(await refusal(t, tasks.kill({ containerId: 'life', execId: '', signal: 9, all: false }, callOf())), [
    'NotFound',
    'process already finished: not found',
  ]);
  t.like(await tasks.delete({ containerId: 'life' }, callOf()), { pid, exitStatus: 3 });
  // A Wait that comes back from a reload finds its answer though the task has gone.
  t.is((await tasks.wait({ containerId: 'life', execId: '' }, callOf(ns, { resume: 'accepted' }))).exitStatus, 3);
  t.deepEqual(shimsOf(rig.host.daemon.address), []);
});

real(title('list, metrics and pids show the tasks of the namespace'), async (t) => {
  const { tasks, run, killAndDelete } = await bench(t);
  const pid = await run('one', ['sleep', '1000']);
  await run('two', ['sleep', '1000']);
  const listed = (await tasks.list({ filter: '' }, callOf())).tasks;
  t.deepEqual(listed.map(({ id, status }) => [id, status]).sort(), [
    ['one', Status.RUNNING],
    ['two', Status.RUNNING],
  ]);
  t.deepEqual((await tasks.list({ filter: '' }, callOf('elsewhere'))).tasks, []);
  const ids = async (...filters: string[]) =>
    (await tasks.metrics({ filters }, callOf())).metrics.map(({ id }) => id).sort();
  t.deepEqual(await ids(), ['one', 'two']);
  t.deepEqual(await ids('id==one'), ['one']);
  t.deepEqual(await ids('id==nobody'), []);
  t.deepEqual(await ids(`namespace==${ns},id~=t`), ['two']);
  t.is((await refusal(t, tasks.metrics({ filters: ['id=='] }, callOf())))[0], 'InvalidArgument');
  t.deepEqual(
    (await tasks.listPids({ containerId: 'one' }, callOf())).processes.map((process) => process.pid),
    [pid],
  );
  await killAndDelete('one');
  await killAndDelete('two');
});

real(title('exec with a terminal: resized, spoken to, closed'), async (t) => {
  const { tasks, run, rig, killAndDelete } = await bench(t);
  await run('box', ['sleep', '1000']);
  const [stdin, stdout] = [join(rig.directory, 'in'), join(rig.directory, 'out')];
  mkfifo(stdin, 0o600);
  mkfifo(stdout, 0o600);
  const fd = openat(AT_FDCWD, stdout, constants.O_RDWR | constants.O_NONBLOCK);
  const output = new Socket({ fd, readable: true, writable: false });
  t.teardown(() => output.destroy());
  let text = '';
  const said = Promise.withResolvers<void>();
  output.on('data', (chunk: Buffer) => {
    text += chunk;
    if (text.includes('heard hello')) said.resolve();
  });
  const value = Buffer.from(
    JSON.stringify({
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ['sh', '-c', 'read line; stty size; echo heard $line; exit 9'],
      env: ['PATH=/bin'],
      cwd: '/',
    }),
  );
  const spec = { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process', value };
  const exec = { containerId: 'box', execId: 'e1', stdin, stdout, stderr: '', terminal: true, spec };
  await tasks.exec(exec, callOf());
  t.is((await refusal(t, tasks.exec(exec, callOf())))[0], 'AlreadyExists');
  const waited = tasks.wait({ containerId: 'box', execId: 'e1' }, callOf(ns, { deadline: 0 }));
  t.true((await tasks.start({ containerId: 'box', execId: 'e1' }, callOf())).pid > 1);
  await tasks.resizePty({ containerId: 'box', execId: 'e1', width: 123, height: 45 }, callOf());
  const input = await open(stdin, 'w');
  await input.write('hello\n');
  await said.promise;
  t.true(text.includes('45 123'), text);
  await tasks.closeIO({ containerId: 'box', execId: 'e1', stdin: true }, callOf());
  await input.close();
  t.is((await waited).exitStatus, 9);
  t.like((await tasks.get({ containerId: 'box', execId: 'e1' }, callOf())).process, {
    id: 'e1',
    status: Status.STOPPED,
    terminal: true,
  });
  t.like(await tasks.deleteProcess({ containerId: 'box', execId: 'e1' }, callOf()), { id: 'e1', exitStatus: 9 });
  t.deepEqual(await refusal(t, tasks.deleteProcess({ containerId: 'box', execId: 'e1' }, callOf())), [
    'NotFound',
    'process does not exist e1: not found',
  ]);
  t.deepEqual(await refusal(t, tasks.exec({ ...exec, execId: '' }, callOf())), [
    'InvalidArgument',
    'exec id cannot be empty: invalid argument',
  ]);
  await killAndDelete('box');
});

real(title('resources are updated while it runs'), async (t) => {
  const { tasks, run, killAndDelete } = await bench(t);
  const pid = await run('limited', ['sleep', '1000']);
  const value = Buffer.from(JSON.stringify({ memory: { limit: 64 << 20 } }));
  const resources = { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources', value };
  await tasks.update({ containerId: 'limited', resources, annotations: {} }, callOf());
  const cgroup = /^\d+:memory:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
  if (cgroup !== undefined)
    t.is(readFileSync(`/sys/fs/cgroup/memory${cgroup}/memory.limit_in_bytes`, 'utf8').trim(), `${64 << 20}`);
  else t.is(readFileSync(`/sys/fs/cgroup/${ns}/limited/memory.max`, 'utf8').trim(), `${64 << 20}`);
  await killAndDelete('limited');
});

real(title('pause and resume, and what is refused meanwhile'), async (t) => {
  const { tasks, run, killAndDelete } = await bench(t);
  await run('still', ['sleep', '1000']);
  await tasks.pause({ containerId: 'still' }, callOf());
  t.is((await tasks.get({ containerId: 'still', execId: '' }, callOf())).process?.status, Status.PAUSED);
  t.is(
    (await refusal(t, tasks.pause({ containerId: 'still' }, callOf())))[1],
    'cannot pause a paused container: unknown',
  );
  await tasks.resume({ containerId: 'still' }, callOf());
  t.is(
    (await refusal(t, tasks.resume({ containerId: 'still' }, callOf())))[1],
    'cannot resume a running process: unknown',
  );
  t.regex(
    (
      await refusal(t, tasks.checkpoint({ containerId: 'still', parentCheckpoint: '', options: undefined }, callOf()))
    )[1],
    /criu|CRIU|no such plugin/,
  );
  await killAndDelete('still');
});

real(title('a Wait is answered by the daemon when the shim is killed'), async (t) => {
  const { tasks, run, rig } = await bench(t);
  await run('orphan', ['sleep', '1000']);
  const waited = tasks.wait({ containerId: 'orphan', execId: '' }, callOf(ns, { deadline: 0 }));
  await tasks.get({ containerId: 'orphan', execId: '' }, callOf());
  process.kill(shimsOf(rig.host.daemon.address)[0]!, 'SIGKILL');
  t.is((await waited).exitStatus, 137);
  t.deepEqual(await refusal(t, tasks.delete({ containerId: 'orphan' }, callOf())), [
    'NotFound',
    'task orphan not found: not found',
  ]);
});

real(title('a client that gives up its Wait gets its own answer'), async (t) => {
  const { tasks, run, killAndDelete } = await bench(t);
  await run('watched', ['sleep', '1000']);
  const controller = new AbortController();
  const waited = tasks.wait(
    { containerId: 'watched', execId: '' },
    callOf(ns, { deadline: 0, signal: controller.signal }),
  );
  await tasks.get({ containerId: 'watched', execId: '' }, callOf());
  controller.abort();
  t.is((await refusal(t, waited))[0], 'Canceled');
  await killAndDelete('watched');
});

real(title('twenty containers at once'), async (t) => {
  const { tasks, run, killAndDelete, rig } = await bench(t);
  const ids = Array.from({ length: 20 }, (_, index) => `c${index}`);
  const pids = await Promise.all(ids.map((id) => run(id, ['sleep', '1000'])));
  t.is(new Set(pids).size, 20);
  t.is((await tasks.list({ filter: '' }, callOf())).tasks.length, 20);
  await Promise.all(ids.map((id) => killAndDelete(id)));
  t.deepEqual(shimsOf(rig.host.daemon.address), []);
});
