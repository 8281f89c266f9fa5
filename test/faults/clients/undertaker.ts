/** Clears away what clients of earlier epochs left when they died, or everything: tasks, containers, images, snapshots, leases, ingests, content. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import type { Turn } from '../turn.ts';

/** Whether something of this name is to go. */
type Doomed = (name: string) => boolean;

export async function undertaker(turn: Turn): Promise<void> {
  const epochOf = /^(?:c|run|s|active|view|layer|leased|lease)-(\d+)-|^faults\.test\/(?:s|image-\d+x*:1-tag)-(\d+)-/;
  await clear(turn, (name) => {
    const match = epochOf.exec(name);
    // What was left last stays for one more look.
    return match !== null && Number(match[1] ?? match[2]) < turn.epoch - 1;
  });
  await sleep(500);
}

/** Removes all that there is, and waits for a collection. */
export async function clearAll(turn: Turn): Promise<void> {
  await clear(turn, () => true);
  const { statuses } = await turn.content.listStatuses({ filters: [] });
  for (const { ref } of statuses)
    await turn.ask('content.abort', [{ object: turn.object('ingest', ref), state: null }], () =>
      turn.content.abort({ ref }),
    );
  await turn.call('leases.delete', async () => {
    await turn.leases.create({ id: 'last', labels: {} });
    await turn.leases.delete({ id: 'last', sync: true });
  });
  // The second one is the sharers', who have nothing else in it.
  for (const namespace of [turn.ground.ns, `${turn.ground.ns}-b`]) {
    const digests: string[] = [];
    for await (const { info } of turn.content.list({ filters: [] }, { namespace }))
      digests.push(...info.map((each) => each.digest));
    for (const digest of digests) {
      const wants = [{ object: `content/${namespace}/${digest}`, state: null }];
      await turn.ask('content.delete', wants, () => unlessGone(turn.content.delete({ digest }, { namespace })));
    }
  }
}

async function clear(turn: Turn, doomed: Doomed): Promise<void> {
  await tasks(turn, doomed);
  // What clients that died have left may be too much for one answer.
  const containers = await turn.call('containers.list', async () => {
    const ids: string[] = [];
    for await (const { container } of turn.containers.listStream({ filters: [] })) ids.push(container!.id);
    return ids;
  });
  for (const id of containers.filter(doomed))
    await turn.ask('containers.delete', [{ object: turn.object('container', id), state: null }], () =>
      turn.containers.delete({ id }),
    );
  const { images } = await turn.call('images.list', () => turn.images.list({ filters: [] }));
  for (const { name } of images.filter((each) => doomed(each.name)))
    await turn.ask('images.delete', [{ object: turn.object('image', name), state: null }], () =>
      turn.images.delete({ name, sync: false }),
    );
  await leases(turn, doomed);
  for (const snapshotter of ['overlayfs', 'native']) await snapshots(turn, snapshotter, doomed);
}

/** With all that only they keep. */
async function leases(turn: Turn, doomed: Doomed): Promise<void> {
  const { leases: all } = await turn.call('leases.list', () => turn.leases.list({ filters: [] }));
  for (const { id } of all.filter((each) => doomed(each.id))) {
    const { resources } = await turn.call('leases.listResources', () => turn.leases.listResources({ id }));
    const kinds: Record<string, string> = { ingests: 'ingest', images: 'image' };
    const held = resources.map(({ type, id: name }) =>
      type.startsWith('snapshots/')
        ? turn.object('snapshot', type.slice('snapshots/'.length), name)
        : turn.object(kinds[type] ?? type, name),
    );
    const wants = [turn.object('lease', id), ...held].map((object) => ({ object, state: null }));
    await turn.askInSteps('leases.delete', wants, () => turn.leases.delete({ id, sync: true }));
  }
}

async function tasks(turn: Turn, doomed: Doomed): Promise<void> {
  const { tasks: all } = await turn.call('tasks.list', () => turn.tasks.list({ filter: '' }));
  for (const containerId of all.map((each) => each.containerId || each.id).filter(doomed)) {
    const process = { containerId, execId: '' };
    // One that was never started, or has ended, cannot be killed.
    await turn.tasks.kill({ ...process, signal: 9, all: true }).catch(() => {});
    await turn.ask('tasks.delete', [{ object: turn.object('task', containerId), state: null }], () =>
      deleteTask(turn, containerId),
    );
  }
}

/** Once it has ended; one that was only created is deleted as it is. */
async function deleteTask(turn: Turn, containerId: string): Promise<void> {
  const { process } = await turn.tasks.get({ containerId, execId: '' });
  if (process?.status !== 1) await turn.tasks.wait({ containerId, execId: '' });
  await turn.tasks.delete({ containerId });
}

/** Children before their parents. What is collected meanwhile is gone as well. */
async function snapshots(turn: Turn, snapshotter: string, doomed: Doomed): Promise<void> {
  for (;;) {
    const all: { name: string; parent: string }[] = [];
    await turn.call('snapshots.list', async () => {
      for await (const { info } of turn.snapshots.list({ snapshotter, filters: [] })) all.push(...info);
    });
    const parents = new Set(all.map((each) => each.parent));
    const leaves = all.filter((each) => doomed(each.name) && !parents.has(each.name));
    if (leaves.length === 0) return;
    for (const { name: key } of leaves)
      await turn.ask('snapshots.remove', [{ object: turn.object('snapshot', snapshotter, key), state: null }], () =>
        unlessGone(turn.snapshots.remove({ snapshotter, key })),
      );
  }
}

async function unlessGone(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!Failure.is(error, 'NotFound')) throw error;
  }
}
