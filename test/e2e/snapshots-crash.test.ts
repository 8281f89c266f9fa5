/** kill -9 of the daemon at named points (some of each day; at every one in `npm run faults`) of snapshots, snapshotters, events and system; then the next start must find what was acknowledged, and nothing else. */
import { globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { sample } from '../faults/sample.ts';
import { Daemon } from '../helpers/daemon.ts';
import { scratchBase } from '../helpers/scratch.ts';

const plugins = join(import.meta.dirname, '../../plugins');
const folders = ['snapshots', 'snapshotter-*', 'events', 'system', 'lib/snapshot'];
const points = folders
  .flatMap((folder) => globSync(join(plugins, folder, '*.ts')))
  .filter((file) => !file.endsWith('.test.ts'))
  .flatMap((file) => [...readFileSync(file, 'utf8').matchAll(/failpoint\('([^']+)'\)/g)].map((match) => match[1]!));
const snapshotter = 'native';
const labels = { 'containerd.io/gc.root': 'x' };

test('there are points to die at', (t) => {
  t.true(points.length >= 20, `${points}`);
});

for (const point of sample([...new Set(points)], 4, 'snapshots')) {
  test.serial(`killed at ${point}`, async (t) => {
    const dir = mkdtempSync(join(scratchBase(), 'troupe-crash-'));
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const daemon = new Daemon(dir, { dir, env: { TROUPE_FAILPOINTS: `${point}=kill` } });
    const acknowledged = new Map<string, 'there' | 'gone' | 'either'>();
    await daemon.start().then(
      () => scenario(daemon, acknowledged),
      () => {},
    );
    t.is((await daemon.exited).signal, 'SIGKILL', 'the point was reached');

    const next = new Daemon(dir, { dir });
    await next.start();
    t.teardown(() => next.stop());
    const client = new GrpcClient(next.address);
    t.teardown(() => client.close());
    const snapshots = typedClient(client, SnapshotsDefinition);
    for (const [key, expected] of acknowledged) {
      const found = await snapshots.stat({ snapshotter, key }, { namespace: 'crash' }).then(
        () => 'there',
        (error) => (Failure.is(error, 'NotFound') ? 'gone' : `${error}`),
      );
      if (expected === 'either') t.true(['there', 'gone'].includes(found), found);
      else t.is(found, expected, key);
    }
    await settled(t.timeout.bind(t), () => disagreement(next.root) === undefined);
    t.is(disagreement(next.root), undefined);
  });
}

/** One of everything. What is in flight when the daemon dies may have happened or not. */
async function scenario(daemon: Daemon, acknowledged: Map<string, 'there' | 'gone' | 'either'>): Promise<void> {
  const client = new GrpcClient(daemon.address);
  const call = { namespace: 'crash', timeoutMs: 10_000 };
  const snapshots = typedClient(client, SnapshotsDefinition);
  const step = async (work: Promise<unknown>, outcome: Record<string, 'there' | 'gone'>): Promise<void> => {
    for (const key of Object.keys(outcome)) acknowledged.set(key, 'either');
    await work;
    for (const [key, state] of Object.entries(outcome)) acknowledged.set(key, state);
  };
  try {
    await step(snapshots.prepare({ snapshotter, key: 'a', parent: '', labels }, call), { a: 'there' });
    await step(snapshots.commit({ snapshotter, key: 'a', name: 'base', labels, parent: '' }, call), {
      a: 'gone',
      base: 'there',
    });
    await step(snapshots.view({ snapshotter, key: 'view', parent: 'base', labels }, call), { view: 'there' });
    await step(snapshots.prepare({ snapshotter, key: 'child', parent: 'base', labels }, call), { child: 'there' });
    await step(snapshots.remove({ snapshotter, key: 'view' }, call), { view: 'gone' });
    const event = { typeUrl: 'test.Unknown', value: Buffer.from('x') };
    const events = typedClient(client, EventsDefinition);
    await events.publish({ topic: '/test/crash', event }, call);
    const envelope = { timestamp: { seconds: 1n, nanos: 0 }, namespace: 'crash', topic: '/test/crash', event };
    await events.forward({ envelope }, call);
    await typedClient(client, IntrospectionDefinition).server({}, call);
    // What happens later: trash rows forgotten, the outbox trimmed.
    const late = setTimeout(() => void daemon.stop('SIGTERM'), 10_000);
    await daemon.exited;
    clearTimeout(late);
  } catch (error) {
    if (!Failure.is(error, 'Unavailable')) throw error;
  } finally {
    client.close();
  }
}

/** What records and disk do not agree on. */
function disagreement(root: string): string | undefined {
  const base = join(root, 'io.containerd.snapshotter.v1.native');
  const onDisk = readdirSync(join(base, 'snapshots')).sort();
  const trash = readdirSync(join(base, 'trash'));
  const database = new DatabaseSync(join(root, 'troupe.records.v1.records/records.db'), { readOnly: true });
  try {
    const ids = database
      .prepare('SELECT CAST(id AS TEXT) AS id FROM snapshots_snapshot')
      .all()
      .map(({ id }) => String(id))
      .sort();
    const rows = database.prepare('SELECT path FROM records_trash').all();
    if (ids.join() !== onDisk.join()) return `records ${ids}, disk ${onDisk}`;
    if (trash.length > 0) return `in the trash: ${trash}`;
    if (rows.length > 0) return `trash rows: ${JSON.stringify(rows)}`;
    return undefined;
  } finally {
    database.close();
  }
}

/** Cleaning goes on after the daemon serves, and nobody says when it is done. */
async function settled(timeout: (ms: number) => void, condition: () => boolean): Promise<void> {
  timeout(60_000);
  for (let tries = 0; tries < 200 && !condition(); tries++) await sleep(25);
}
