/** A container's whole life, call by call: snapshot, record, task, start, exec, kill, delete. */
import { processOf as processInfo } from '../checker/processes.ts';
import type { Want } from '../checker/oracle.ts';
import type { Turn } from '../turn.ts';
import { processOf, processUrl, specOf, specUrl } from './spec.ts';

const snapshotter = 'overlayfs';
const noIo = { stdin: '', stdout: '', stderr: '', terminal: false };

export async function containers(turn: Turn): Promise<void> {
  const id = turn.unique('c');
  const args = turn.random.chance(0.3) ? ['sh', '-c', 'exit 3'] : ['sleep', '1000'];
  await create(turn, id, args, '');
  await turn.call('tasks.start', () => turn.tasks.start({ containerId: id, execId: '' }));
  if (args[0] === 'sleep') {
    await exec(turn, id);
    await turn.call('tasks.kill', () => turn.tasks.kill({ containerId: id, execId: '', signal: 9, all: true }));
  }
  const { exitStatus } = await turn.call('tasks.wait', () => turn.tasks.wait({ containerId: id, execId: '' }));
  const expected = args[0] === 'sleep' ? 137 : 3;
  if (exitStatus !== expected)
    turn.report('tasks.wait', { code: 'Wrong', message: `${id} ended with ${exitStatus}, not ${expected}` });
  await turn.ask('tasks.delete', [{ object: turn.object('task', id), state: null }], () =>
    turn.tasks.delete({ containerId: id }),
  );
  await bury(turn, id);
}

/** Makes everything up to the task, which waits to be started. @returns the pid */
export async function create(turn: Turn, id: string, args: readonly string[], stdout: string): Promise<number> {
  const { ns, base } = turn.ground;
  const { mounts } = await turn.ask(
    'snapshots.prepare',
    [{ object: turn.object('snapshot', snapshotter, id), state: { kind: 'active', parent: base.chainId } }],
    () =>
      turn.snapshots.prepare({
        snapshotter,
        key: id,
        parent: base.chainId,
        labels: { 'containerd.io/gc.root': 'faults' },
      }),
  );
  const container = { id, image: base.name, labels: { faults: id }, snapshotter, snapshotKey: id };
  await turn.ask('containers.create', [{ object: turn.object('container', id), state: stateOf(container) }], () =>
    turn.containers.create({
      container: {
        ...container,
        runtime: { name: 'io.containerd.runc.v2', options: undefined },
        spec: { typeUrl: specUrl, value: specOf(ns, id, args) },
      },
    }),
  );
  const { pid } = await turn.ask('tasks.create', [{ object: turn.object('task', id), state: {} }], () =>
    turn.tasks.create({ containerId: id, rootfs: mounts, ...noIo, stdout, stderr: stdout }),
  );
  return pid;
}

function stateOf({
  image,
  labels,
  snapshotKey,
}: {
  image: string;
  labels: Record<string, string>;
  snapshotKey: string;
}): Want['state'] {
  return { image, labels, snapshotter, snapshotKey };
}

async function exec(turn: Turn, containerId: string): Promise<void> {
  const execId = 'exec';
  await turn.call('tasks.exec', () =>
    turn.tasks.exec({
      containerId,
      execId,
      ...noIo,
      spec: { typeUrl: processUrl, value: processOf(['sh', '-c', 'exit 4']) },
    }),
  );
  await turn.call('tasks.start', () => turn.tasks.start({ containerId, execId }));
  const { exitStatus } = await turn.call('tasks.wait', () => turn.tasks.wait({ containerId, execId }));
  if (exitStatus !== 4)
    turn.report('tasks.wait', { code: 'Wrong', message: `exec in ${containerId} ended with ${exitStatus}, not 4` });
  await turn.call('tasks.deleteProcess', () => turn.tasks.deleteProcess({ containerId, execId }));
}

/** Snapshot and record of a container that has no task any more. */
export async function bury(turn: Turn, id: string): Promise<void> {
  await turn.ask('snapshots.remove', [{ object: turn.object('snapshot', snapshotter, id), state: null }], () =>
    turn.snapshots.remove({ snapshotter, key: id }),
  );
  await turn.ask('containers.delete', [{ object: turn.object('container', id), state: null }], () =>
    turn.containers.delete({ id }),
  );
}

/** Starts a container that counts into a file, line by line, until somebody kills it. */
export async function startRunner(turn: Turn, id: string): Promise<void> {
  const counter = `${turn.ground.scratch}/${id}.log`;
  const pid = await create(
    turn,
    id,
    ['sh', '-c', 'i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done'],
    `file://${counter}`,
  );
  const { started } = processInfo(pid)!;
  await turn.ask('tasks.start', [{ object: turn.object('task', id), state: { pid, started, counter } }], () =>
    turn.tasks.start({ containerId: id, execId: '' }),
  );
}
