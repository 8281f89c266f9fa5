import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Call, Log } from 'troupe/plugin';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { inProcess } from '../../test/helpers/in-process.ts';
import snapshots from '../snapshots/index.ts';
import native from '../snapshotter-native/index.ts';
import { OmissionRecords } from './omissions.ts';

const digest = `sha256:${'0'.repeat(64)}`;
const call = (namespace: string): Call => ({ namespace, signal: AbortSignal.timeout(60_000) }) as unknown as Call;

async function setUp(t: ExecutionContext) {
  const daemon = inProcess(t, 'snapshots');
  await daemon.add(native, {
    id: 'io.containerd.snapshotter.v1.native',
    name: 'native',
    config: { root_path: '', sync_remove: true },
  });
  await daemon.add(snapshots, { id: 'io.containerd.service.v1.snapshots-service', prefix: 'snapshots' });
  const client = daemon.client(SnapshotsDefinition, { namespace: 'default' });
  const lines: string[] = [];
  const log = {
    warn: (message: string) => void lines.push(`warn ${message.slice(0, 17)}`),
    debug: (message: string) => void lines.push(`debug ${message.slice(0, 17)}`),
  } as unknown as Log;
  const omissions = new OmissionRecords(daemon.records.as(''), daemon.client(SnapshotsDefinition) as never, log);
  const labels = async (key: string) => (await client.stat({ snapshotter: 'native', key })).info!.labels;
  return { daemon, client, omissions, labels, lines };
}

test('what could not be unpacked stays with the snapshot, committed or not, and is said once', async (t) => {
  const { client, omissions, labels, lines } = await setUp(t);
  const { mounts } = await client.prepare({ snapshotter: 'native', key: 'a', labels: { mine: 'x' } });
  await omissions.keep(digest, mounts, [], call('default'));
  t.deepEqual(await labels('a'), { mine: 'x' });
  await omissions.keep(digest, mounts, ['ownership'], call('default'));
  await omissions.keep(digest, mounts, ['device', 'ownership'], call('default'));
  t.deepEqual(await labels('a'), { mine: 'x', 'troupe/omitted': 'ownership,device' });
  await client.commit({ snapshotter: 'native', key: 'a', name: 'c', labels: { other: 'y' } });
  t.deepEqual(await labels('c'), { other: 'y', 'troupe/omitted': 'ownership,device' });
  t.deepEqual(lines, ['warn without privilege', 'debug without privilege']);
});

test('a snapshot that nothing is missing from has no such label', async (t) => {
  const { client, labels } = await setUp(t);
  await client.prepare({ snapshotter: 'native', key: 'a' });
  await client.commit({ snapshotter: 'native', key: 'a', name: 'c' });
  t.deepEqual(await labels('c'), {});
});

test('mounts that are no snapshot of this namespace leave every record as it is', async (t) => {
  const { daemon, client, omissions, labels } = await setUp(t);
  const { mounts } = await client.prepare({ snapshotter: 'native', key: 'a' });
  const bind = (source: string) => [{ type: 'bind', source, target: '', options: ['rbind', 'rw'] }];
  await omissions.keep(digest, mounts, ['device'], call('other'));
  await omissions.keep(digest, bind(join(daemon.root, 'elsewhere', '1')), ['device'], call('default'));
  await omissions.keep(digest, bind(join(daemon.root, 'elsewhere')), ['device'], call('default'));
  await omissions.keep(digest, [...mounts, ...mounts], ['device'], call('default'));
  t.deepEqual(await labels('a'), {});
});

test('a daemon without the snapshots service still says it', async (t) => {
  const daemon = inProcess(t);
  const lines: unknown[] = [];
  const log = { warn: (_: string, fields: unknown) => void lines.push(fields) } as unknown as Log;
  const omissions = new OmissionRecords(daemon.records.as(''), daemon.client(SnapshotsDefinition) as never, log);
  const mounts = [{ type: 'bind', source: '/x/snapshots/1', target: '', options: ['rw'] }];
  await omissions.keep(digest, mounts, ['xattr'], call('default'));
  t.deepEqual(lines, [{ digest, omitted: ['xattr'], kept: 'not kept: the mounts are no snapshot of ours' }]);
});
