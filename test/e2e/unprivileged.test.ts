/** A daemon that may not mount, give files away or make devices: what it does, what it leaves out, and that it says so. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { DemoContainer } from '../../demo/container.ts';
import { importImage, unpack } from '../../demo/import.ts';
import { Progress } from '../../demo/progress.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { archive, type Crafted, entry, pax } from '../../plugins/lib/tar/craft.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { imageOf } from '../helpers/demo-image.ts';
import { needing, withoutPrivilege } from '../helpers/privilege.ts';

const dir = (name: string, more: Crafted = {}): Buffer => entry({ name, type: '5', mode: 0o755, ...more });
const file = (name: string, more: Crafted = {}): Buffer => entry({ name, body: name, ...more });
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** What real images have and a user may not make, or may make once and then not get into. */
const image = imageOf('odd.test/image:1', [
  archive(
    dir('usr'),
    dir('usr/bin', { mode: 0o555 }),
    file('usr/bin/kept'),
    file('usr/bin/gone'),
    dir('secret', { mode: 0 }),
    file('secret/key', { mode: 0, uid: 1000, gid: 1000 }),
    entry({ name: 'null', type: '3', devMajor: 1, devMinor: 3 }),
    pax({ 'SCHILY.xattr.security.capability': capability }),
    file('ping', { mode: 0o4755 }),
  ),
  archive(file('usr/bin/new'), file('usr/bin/.wh.gone'), file('secret/more')),
  archive(file('.wh.secret'), file('top')),
]);

async function setUp(t: ExecutionContext) {
  t.timeout(120_000);
  const daemon = await useDaemon(t, { prefix: withoutPrivilege });
  const client = new GrpcClient(daemon.address, { namespace: 'plain' });
  t.teardown(() => client.close());
  return { daemon, client, snapshots: typedClient(client, SnapshotsDefinition) };
}

test('layers are unpacked into native snapshots; what they lack is said once and stays with each', async (t) => {
  const { daemon, client, snapshots } = await setUp(t);
  const progress = new Progress();
  const lease = await importImage(client, image, progress);
  const { chain, waited } = await unpack(client, image, { snapshotter: 'native', parallel: false }, lease, progress);
  t.is(waited.size, 0);

  const { info } = await snapshots.stat({ snapshotter: 'native', key: chain[0]! });
  t.deepEqual(info?.labels['troupe/omitted']?.split(',').sort(), ['device', 'mode', 'ownership', 'xattr']);
  const said = daemon.log.filter((line) => line.includes('not everything of a layer can be unpacked'));
  t.is(said.length, 1, said.join('\n'));

  const labels = { 'containerd.io/gc.root': 'looked at' };
  const { mounts } = await snapshots.view({ snapshotter: 'native', key: 'v', parent: chain.at(-1)!, labels });
  const root = mounts[0]!.source;
  t.deepEqual(readdirSync(root).sort(), ['ping', 'top', 'usr']);
  t.deepEqual(readdirSync(join(root, 'usr/bin')).sort(), ['kept', 'new']);
  t.is(readFileSync(join(root, 'usr/bin/kept'), 'utf8'), 'usr/bin/kept');

  await snapshots.remove({ snapshotter: 'native', key: 'v' });
  for (const key of chain.toReversed()) await snapshots.remove({ snapshotter: 'native', key });
  const left: string[] = [];
  for await (const { info: some } of snapshots.list({ snapshotter: 'native', filters: [] }))
    left.push(...some.map(({ name }) => name));
  t.deepEqual(left, []);
});

test('overlayfs is skipped, with the reason in the plugin table, in the log once, and for whoever asks for it', async (t) => {
  const { daemon, client, snapshots } = await setUp(t);
  const { plugins } = await typedClient(client, IntrospectionDefinition).plugins({
    filters: ['type==io.containerd.snapshotter.v1'],
  });
  const state = new Map(plugins.map(({ id, initErr }) => [id, initErr?.message]));
  t.is(state.get('native'), undefined);
  t.regex(state.get('overlayfs') ?? '', /mounting takes root.*: skip plugin$/);
  const said = daemon.log.filter((line) => line.includes('plugin skipped') && line.includes('overlayfs'));
  t.is(said.length, 1, said.join('\n'));
  const failure = (await t.throwsAsync(
    snapshots.prepare({ snapshotter: 'overlayfs', key: 'a', parent: '', labels: {} }),
    {
      instanceOf: Failure,
      message: /^snapshotter not loaded: overlayfs: .*mounting takes root.*: invalid argument$/,
    },
  )) as Failure;
  t.is(failure.code, 'InvalidArgument');
});

needing(
  'program containerd-shim-runc-v2',
  'program runc',
  'program mkfifo',
)('a task is refused with the reason, and leaves nothing', async (t) => {
  const { daemon, client } = await setUp(t);
  const container = new DemoContainer(client, 'plain', daemon.dir, 'native');
  await container.create('', 'none', ['true']);
  const failure = (await t.throwsAsync(container.start(), { instanceOf: Failure })) as Failure;
  t.is(failure.code, 'PermissionDenied', failure.message);
  t.regex(
    failure.message,
    /^failed to (start shim|create shim task): .*containers take a daemon of root that may: permission denied$/s,
  );
  t.deepEqual(daemon.shims(), []);
  await container.remove();
});
