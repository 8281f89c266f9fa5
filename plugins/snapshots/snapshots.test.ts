import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { SnapshotPrepare, SnapshotRemove } from 'troupe/proto/containerd/events/snapshot.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { type InProcess, inProcess, type Running } from '../../test/helpers/in-process.ts';
import native from '../snapshotter-native/index.ts';
import snapshots from './index.ts';

const id = 'io.containerd.service.v1.snapshots-service';
const nativeId = 'io.containerd.snapshotter.v1.native';
const native1 = { snapshotter: 'native' };
const root = { 'containerd.io/gc.root': 'x' };

async function setUp(t: ExecutionContext) {
  const daemon = inProcess(t, 'snapshots', 'leases');
  await daemon.add(native, { id: nativeId, name: 'native', config: { root_path: '', sync_remove: true } });
  const plugin = await daemon.add(snapshots, { id, prefix: 'snapshots' });
  const client = daemon.client(SnapshotsDefinition, { namespace: 'default' });
  const onDisk = () => readdirSync(join(daemon.root, nativeId, 'snapshots')).sort();
  return { daemon, plugin, client, onDisk };
}

function add(daemon: InProcess): Promise<Running> {
  return daemon.add(snapshots, { id, prefix: 'snapshots' });
}

/** Resolves when `condition` holds; looks again after every commit, and now and then for what happens without one. @throws after a minute without it */
async function until(daemon: InProcess, condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 60_000; !condition(); ) {
    if (performance.now() > end) throw new Error(`never: ${condition}`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, 20);
      const off = daemon.records.engine.onBatch(done);
      function done() {
        clearTimeout(timer);
        off();
        resolve();
      }
    });
  }
}

test('the events of each operation, views aside', async (t) => {
  const { daemon, client } = await setUp(t);
  await client.prepare({ ...native1, key: 'a' });
  await client.commit({ ...native1, key: 'a', name: 'c' });
  await client.view({ ...native1, key: 'v', parent: 'c' });
  await client.prepare({ ...native1, key: 'b', parent: 'c' });
  await client.remove({ ...native1, key: 'b' });
  const rows = daemon.records.rows<{ topic: string; ns: string; value: Uint8Array; type_url: string }>(
    'SELECT ns, topic, type_url, value FROM records_outbox ORDER BY seq',
  );
  t.deepEqual(
    rows.map(({ topic, type_url, ns }) => `${ns} ${topic} ${type_url}`),
    [
      'default /snapshot/prepare containerd.events.SnapshotPrepare',
      'default /snapshot/commit containerd.events.SnapshotCommit',
      'default /snapshot/prepare containerd.events.SnapshotPrepare',
      'default /snapshot/remove containerd.events.SnapshotRemove',
    ],
  );
  t.deepEqual(SnapshotPrepare.decode(rows[2]!.value), { key: 'b', parent: 'c', snapshotter: 'native' });
  t.deepEqual(SnapshotRemove.decode(rows[3]!.value), { key: 'b', snapshotter: 'native' });
});

test('namespaces do not see each other', async (t) => {
  const { client } = await setUp(t);
  await client.prepare({ ...native1, key: 'a' });
  await client.commit({ ...native1, key: 'a', name: 'c' });
  const other = { namespace: 'other' };
  await t.throwsAsync(client.stat({ ...native1, key: 'c' }, other), {
    message: 'snapshot c does not exist: not found',
  });
  await t.throwsAsync(client.prepare({ ...native1, key: 'x', parent: 'c' }, other), {
    message: 'parent snapshot c does not exist: not found',
  });
  await client.prepare({ ...native1, key: 'a' }, other);
  await t.throwsAsync(client.stat({ ...native1, key: 'c' }, { namespace: '' }), {
    message: 'namespace is required: failed precondition',
  });
});

test('a failed prepare leaves no directory', async (t) => {
  const { client, onDisk } = await setUp(t);
  const lease = { namespace: 'default', lease: 'nobody' };
  const error = await t.throwsAsync(client.prepare({ ...native1, key: 'a' }, lease));
  t.true(Failure.is(error, 'NotFound'));
  t.deepEqual(onDisk(), []);
  // Nothing refers to it, and the key is still free.
  await client.prepare({ ...native1, key: 'a' });
  t.is(onDisk().length, 1);
});

test('leases hold what was made under them, by its name of the day', async (t) => {
  const { daemon, client } = await setUp(t);
  const leases = daemon.records.as('leases');
  await leases.commit({
    statements: [{ sql: "INSERT INTO leases_lease (ns, id, created_at, labels) VALUES ('default', 'l', 1, '{}')" }],
    namespace: 'default',
  });
  const held = () => daemon.records.rows<{ type: string; id: string }>('SELECT type, id FROM records_lease_resource');
  const call = { namespace: 'default', lease: 'l' };
  await client.prepare({ ...native1, key: 'a' }, call);
  t.deepEqual(held(), [{ type: 'snapshots/native', id: 'a' }]);
  await client.commit({ ...native1, key: 'a', name: 'c' }, call);
  t.deepEqual(held(), [{ type: 'snapshots/native', id: 'c' }]);
  await client.remove({ ...native1, key: 'c' }, call);
  t.deepEqual(held(), []);
  await client.prepare({ ...native1, key: 'b' });
  await client.remove({ ...native1, key: 'b' }, { namespace: 'default', lease: 'gone' });
  t.is(daemon.records.rows('snapshots_snapshot').length, 0);
});

test('the collector takes what nothing refers to, children first, and its directories go', async (t) => {
  const { daemon, client, onDisk } = await setUp(t);
  await client.prepare({ ...native1, key: 'a' });
  await client.commit({ ...native1, key: 'a', name: 'base', labels: {} });
  await client.prepare({ ...native1, key: 'b', parent: 'base' });
  await client.commit({ ...native1, key: 'b', name: 'kept', labels: root });
  await client.prepare({ ...native1, key: 'loose', parent: 'base' });
  await client.view({ ...native1, key: 'looser', parent: 'kept' });
  await daemon.records.collect();
  const keys = () =>
    daemon.records.rows<{ key: string }>('SELECT key FROM snapshots_snapshot ORDER BY key').map((r) => r.key);
  t.deepEqual(keys(), ['base', 'kept']);
  await until(daemon, () => onDisk().length === 2);
  await client.update({ ...native1, info: { name: 'kept', labels: {} }, updateMask: ['labels'] });
  await daemon.records.collect();
  t.deepEqual(keys(), []);
  await until(daemon, () => onDisk().length === 0);
  await until(daemon, () => daemon.records.rows('records_trash').length === 0);
  const removed = daemon.records
    .rows<{ value: Uint8Array }>("SELECT value FROM records_outbox WHERE topic = '/snapshot/remove' ORDER BY seq")
    .map(({ value }) => SnapshotRemove.decode(value).key);
  t.deepEqual(removed.toSorted(), ['base', 'kept', 'loose', 'looser']);
  t.true(removed.indexOf('kept') < removed.indexOf('base'));
});

test('labels keep other things, also after a commit under another name', async (t) => {
  const { daemon, client } = await setUp(t);
  await client.prepare({ ...native1, key: 'other' });
  await client.commit({ ...native1, key: 'other', name: 'referred' });
  await client.prepare({ ...native1, key: 'a', labels: root });
  await client.commit({
    ...native1,
    key: 'a',
    name: 'c',
    labels: { ...root, 'containerd.io/gc.ref.snapshot.native': 'referred' },
  });
  await daemon.records.collect();
  const keys = daemon.records
    .rows<{ key: string }>('SELECT key FROM snapshots_snapshot ORDER BY key')
    .map((r) => r.key);
  t.deepEqual(keys, ['c', 'referred']);
});

test('after a crash records and directories are brought together', async (t) => {
  const { daemon, plugin, client, onDisk } = await setUp(t);
  await client.prepare({ ...native1, key: 'a', labels: root });
  await client.prepare({ ...native1, key: 'b', labels: root });
  const snapshotter = daemon.client(SnapshotterDefinition, { name: 'native' });
  // Prepared, and the crash came before the record.
  await snapshotter.prepare({ id: '9' });
  mkdirSync(join(daemon.root, nativeId, 'snapshots/new-10'));
  // A power cut: the record is there, the directory is not.
  rmSync(join(daemon.root, nativeId, 'snapshots/2'), { recursive: true });
  // Removed, and the crash came before the directory went.
  await daemon.records.as('snapshots').commit({
    statements: [{ sql: 'SELECT 1' }],
    trash: [{ owner: id, path: '10/native' }],
  });
  await snapshotter.prepare({ id: '10' });
  plugin.crash();
  await plugin.stop();
  await add(daemon);
  const recorded = () =>
    daemon.records.rows<{ id: number; key: string }>('SELECT id, key FROM snapshots_snapshot ORDER BY id');
  await until(
    daemon,
    () =>
      onDisk().join() ===
      recorded()
        .map(({ id }) => id)
        .join(),
  );
  await until(daemon, () => daemon.records.rows('records_trash').length === 0);
  t.deepEqual(onDisk(), ['1', '2']);
  t.deepEqual(recorded(), [
    { id: 1, key: 'a' },
    { id: 2, key: 'b' },
  ]);
  // The directory that was lost can be worked in again, and nothing that was to go stands in the way of what comes.
  const { mounts } = await client.mounts({ ...native1, key: 'b' });
  t.deepEqual(readdirSync(mounts[0]!.source), []);
  await client.prepare({ ...native1, key: 'next', labels: root });
  t.is(onDisk().length, 3);
});

test('a committed snapshot whose directory is lost is told, not built upon, and made anew', async (t) => {
  const { daemon, plugin, client, onDisk } = await setUp(t);
  const layer = async (content: string) => {
    const { mounts } = await client.prepare({ ...native1, key: 'a', labels: root });
    writeFileSync(join(mounts[0]!.source, 'file'), content);
    await client.commit({ ...native1, key: 'a', name: 'A', labels: root });
  };
  await layer('first');
  await client.prepare({ ...native1, key: 'bystander', labels: root });
  rmSync(join(daemon.root, nativeId, 'snapshots/1'), { recursive: true });
  plugin.crash();
  await plugin.stop();
  const next = await add(daemon);
  await until(daemon, () => next.log.some(({ message }) => message.includes('is gone')));
  const told = next.log.find(({ message }) => message.includes('is gone'))!;
  t.is(told.message, 'the directory of a committed snapshot is gone: remove the snapshot and unpack it again');
  t.deepEqual(told.fields, { namespace: 'default', snapshotter: 'native', key: 'A', id: 1 });
  const before = onDisk();
  const failure = await t.throwsAsync(client.prepare({ ...native1, key: 'child', parent: 'A' }), {
    instanceOf: Failure,
  });
  t.is((failure as Failure).code, 'NotFound');
  t.regex(
    failure!.message,
    /^snapshot "child" in namespace "default" cannot be made on its parent "A": directory of snapshot 1 .*: not found$/,
  );
  t.deepEqual(onDisk(), before, 'nothing is left of the child');
  t.is((await client.stat({ ...native1, key: 'bystander' })).info?.name, 'bystander');
  await client.remove({ ...native1, key: 'A' });
  await layer('again');
  const { mounts } = await client.prepare({ ...native1, key: 'child', parent: 'A', labels: root });
  t.is(readFileSync(join(mounts[0]!.source, 'file'), 'utf8'), 'again');
});

test('an id from before a crash makes no record any more', async (t) => {
  const { daemon, client } = await setUp(t);
  let release = (): void => {};
  let entered = (): void => {};
  const preparing = new Promise<void>((resolve) => {
    entered = resolve;
  });
  const real = daemon.client(SnapshotterDefinition, { name: 'native' });
  daemon.serve(
    SnapshotterDefinition,
    {
      ...real,
      async prepare(request: never) {
        entered();
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        return real.prepare(request);
      },
    },
    'slow',
  );
  const slow = client.prepare({ snapshotter: 'slow', key: 'a' });
  await preparing;
  await add(daemon);
  release();
  const error = await t.throwsAsync(slow);
  t.true(Failure.is(error, 'Unavailable'), error?.message);
  t.deepEqual(daemon.records.rows('snapshots_snapshot'), []);
});

test('a reload in between loses nothing', async (t) => {
  const { daemon, plugin, client } = await setUp(t);
  await client.prepare({ ...native1, key: 'a', labels: root });
  await plugin.reload();
  await client.prepare({ ...native1, key: 'b', labels: root });
  await client.remove({ ...native1, key: 'a' });
  const ids = daemon.records.rows<{ id: number }>('SELECT id FROM snapshots_snapshot');
  t.deepEqual(ids, [{ id: 2 }], 'the second generation goes on in the block of the first');
});

test('cleanup removes what nobody will ever record', async (t) => {
  const { daemon, plugin, client, onDisk } = await setUp(t);
  plugin.crash();
  await plugin.stop();
  await add(daemon);
  await client.prepare({ ...native1, key: 'a', labels: root });
  const snapshotter = daemon.client(SnapshotterDefinition, { name: 'native' });
  await snapshotter.prepare({ id: '3' });
  await snapshotter.prepare({ id: '100' });
  await client.cleanup(native1);
  t.deepEqual(onDisk(), ['100', '65'], 'an id that may yet get its record stays');
  await t.throwsAsync(client.cleanup({ snapshotter: 'nope' }), {
    message: 'snapshotter not loaded: nope: invalid argument',
  });
});

test('a snapshotter that cannot work on this machine is refused with its reason', async (t) => {
  const { daemon, client } = await setUp(t);
  const plugins = [{ id: 'io.containerd.snapshotter.v1.overlayfs', state: 'skipped', reason: 'mounting takes root' }];
  daemon.serve(KernelDefinition, { list: () => ({ plugins }) });
  const failure = (await t.throwsAsync(client.prepare({ snapshotter: 'overlayfs', key: 'a' }), {
    instanceOf: Failure,
    message: 'snapshotter not loaded: overlayfs: mounting takes root: invalid argument',
  })) as Failure;
  t.is(failure.code, 'InvalidArgument');
});

test('a parent can be given at commit where the snapshotter rebases', async (t) => {
  const { daemon, client } = await setUp(t);
  const real = daemon.client(SnapshotterDefinition, { name: 'native' });
  const seen: string[][] = [];
  daemon.serve(
    SnapshotterDefinition,
    {
      ...real,
      info: async () => ({ capabilities: ['rebase', 'label:dir={root}/{id}'], root: '/r' }),
      async commit(request: { parents: string[] }) {
        seen.push(request.parents);
        return { size: 1n, inodes: 2n };
      },
    },
    'rebasing',
  );
  const named = { snapshotter: 'rebasing' };
  await client.prepare({ ...named, key: 'a' });
  t.deepEqual((await client.stat({ ...named, key: 'a' })).info?.labels, { dir: '/r/1' });
  await client.commit({ ...named, key: 'a', name: 'base' });
  await client.prepare({ ...named, key: 'b' });
  await t.throwsAsync(client.commit({ ...named, key: 'b', name: 'c', parent: 'nowhere' }), {
    message: 'parent snapshot nowhere does not exist: not found',
  });
  await client.commit({ ...named, key: 'b', name: 'c', parent: 'base' });
  t.deepEqual(seen, [[], ['1']]);
  t.is((await client.stat({ ...named, key: 'c' })).info?.parent, 'base');
  await client.prepare({ ...named, key: 'd', parent: 'c' });
  await t.throwsAsync(client.commit({ ...named, key: 'd', name: 'e', parent: 'base' }), {
    message:
      'failed to commit snapshot: snapshot "d" in namespace "default" has parent "c" already: failed precondition',
  });
  await client.prepare({ ...native1, key: 'n' });
  await t.throwsAsync(client.commit({ ...native1, key: 'n', name: 'm', parent: 'base' }), {
    message:
      'failed to commit snapshot: snapshot "n" in namespace "default": snapshotter native cannot rebase: invalid argument',
  });
});

test('the snapshotter hears of labels that are meant for it', async (t) => {
  const { daemon, client } = await setUp(t);
  const real = daemon.client(SnapshotterDefinition, { name: 'native' });
  let heard: unknown;
  daemon.serve(
    SnapshotterDefinition,
    {
      ...real,
      async prepare(request: { labels: unknown }) {
        heard = request.labels;
        return { mounts: [] };
      },
    },
    'listening',
  );
  const labels = {
    mine: '1',
    'containerd.io/snapshot/quota': '2',
    'containerd.io/snapshot.ref': '3',
    'containerd.io/gc.root': '4',
  };
  await client.prepare({ snapshotter: 'listening', key: 'a', labels });
  t.deepEqual(heard, { 'containerd.io/snapshot/quota': '2', 'containerd.io/snapshot.ref': '3' });
});
