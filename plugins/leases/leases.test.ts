import test, { type ExecutionContext } from 'ava';
import type { Call } from 'troupe/plugin';
import { useRecords } from '../../test/helpers/records.ts';
import { leasesService } from './service.ts';
import { LeaseStore } from './store.ts';

const digest = `sha256:${'a'.repeat(64)}`;

function useLeases(t: ExecutionContext) {
  const test = useRecords(t, 'leases');
  const collections: string[] = [];
  const service = leasesService(new LeaseStore(test.records), async () => {
    collections.push(
      test
        .rows<{ id: string }>('SELECT id FROM leases_lease')
        .map(({ id }) => id)
        .join(),
    );
  });
  const inside = (namespace: string) => ({ namespace }) as Call;
  const create = async (id: string, labels = {}, namespace = 'default') =>
    service.create({ id, labels }, inside(namespace));
  const list = async (...filters: string[]) => (await service.list({ filters }, inside('default'))).leases;
  const ids = async (...filters: string[]) => (await list(...filters)).map(({ id }) => id);
  const resources = async (id: string, namespace = 'default') =>
    (await service.listResources({ id }, inside(namespace))).resources;
  return { ...test, service, create, list, ids, resources, collections, call: inside('default'), inside };
}

test('made, listed, filtered', async (t) => {
  const { create, list, ids, rows } = useLeases(t);
  const before = BigInt(Date.now()) * 1_000_000n;
  const { lease } = await create('b', { foo: 'bar', 'containerd.io/gc.flat': '1', empty: '' });
  t.deepEqual(lease!.labels, { foo: 'bar', 'containerd.io/gc.flat': '1' });
  const at = lease!.createdAt!.seconds * 1_000_000_000n + BigInt(lease!.createdAt!.nanos);
  t.true(at >= before - 200_000n && at <= BigInt(Date.now() + 1) * 1_000_000n);
  await create('free text /é"');
  await create('b', {}, 'other');
  t.deepEqual((await list())[0], lease);
  t.deepEqual(await ids(), ['b', 'free text /é"']);
  t.deepEqual(await ids('labels.foo==bar'), ['b']);
  t.deepEqual(await ids('id~="^free"', 'id==b'), ['b', 'free text /é"']);
  t.deepEqual(
    rows<{ name: string }>('records_namespace').map(({ name }) => name),
    ['default', 'other'],
  );
});

test('one without an id is given one', async (t) => {
  const { create, ids } = useLeases(t);
  const made = await Promise.all(Array.from({ length: 20 }, async () => (await create('')).lease!.id));
  for (const id of made) t.regex(id, /^\d{1,9}-[A-Za-z0-9_-]{4}$/);
  t.deepEqual(await ids(), made.sort());
});

test('twice, or with labels too long is refused', async (t) => {
  const { create, ids } = useLeases(t);
  await create('a');
  t.like(await t.throwsAsync(create('a')), { code: 'AlreadyExists', message: 'lease "a": already exists' });
  t.like(await t.throwsAsync(create('x'.repeat(40_000))), { code: 'InvalidArgument' });
  t.like(await t.throwsAsync(create('a\0b')), { code: 'InvalidArgument' });
  t.like(await t.throwsAsync(create('b', { long: 'x'.repeat(5000) })), { code: 'InvalidArgument' });
  t.deepEqual(await ids(), ['a']);
});

test('a namespace is required', async (t) => {
  const { service, inside } = useLeases(t);
  const resource = { type: 'content', id: digest };
  const methods: ((call: Call) => unknown)[] = [
    (call) => service.create({ id: 'a', labels: {} }, call),
    (call) => service.delete({ id: 'a', sync: false }, call),
    (call) => service.list({ filters: [] }, call),
    (call) => service.addResource({ id: 'a', resource }, call),
    (call) => service.deleteResource({ id: 'a', resource }, call),
    (call) => service.listResources({ id: 'a' }, call),
  ];
  for (const method of methods) {
    t.like(await t.throwsAsync(async () => method(inside(''))), { code: 'FailedPrecondition' });
    t.like(await t.throwsAsync(async () => method(inside('a..b'))), { code: 'InvalidArgument' });
  }
});

test('deleting collects only when asked to, after it is gone', async (t) => {
  const { create, service, call, collections, ids } = useLeases(t);
  await create('a');
  await create('b');
  await service.delete({ id: 'a', sync: false }, call);
  t.deepEqual(collections, []);
  await service.delete({ id: 'b', sync: true }, call);
  t.deepEqual(collections, ['']);
  t.deepEqual(await ids(), []);
  t.like(await t.throwsAsync(async () => service.delete({ id: 'b', sync: true }, call)), {
    code: 'NotFound',
    message: 'lease "b": not found',
  });
  t.is(collections.length, 1);
});

test('resources are added, listed, removed, and go with their lease', async (t) => {
  const { create, service, call, resources, rows } = useLeases(t);
  await create('a');
  await create('b');
  const all = [
    { type: 'content', id: digest },
    { type: 'images', id: 'docker.io/library/busybox:latest' },
    { type: 'ingests', id: 'some ref' },
    { type: 'snapshots/overlayfs', id: 'key' },
  ];
  for (const resource of [...all, ...all]) await service.addResource({ id: 'a', resource }, call);
  await service.addResource({ id: 'b', resource: all[0] }, call);
  t.deepEqual(await resources('a'), all);
  await service.deleteResource({ id: 'a', resource: all[1] }, call);
  await service.deleteResource({ id: 'a', resource: all[1] }, call);
  t.deepEqual(await resources('a'), [all[0], all[2], all[3]]);
  await service.delete({ id: 'a', sync: false }, call);
  t.deepEqual(await resources('b'), [all[0]]);
  t.is(rows('records_lease_resource').length, 1);
});

test('resources of an unknown lease', async (t) => {
  const { create, service, call, resources } = useLeases(t);
  await create('elsewhere', {}, 'other');
  const notFound = { code: 'NotFound', message: 'lease "elsewhere": not found' };
  const resource = { type: 'content', id: digest };
  t.like(await t.throwsAsync(resources('elsewhere')), notFound);
  t.like(await t.throwsAsync(async () => service.addResource({ id: 'elsewhere', resource }, call)), notFound);
  t.like(await t.throwsAsync(async () => service.deleteResource({ id: 'elsewhere', resource }, call)), notFound);
  t.deepEqual(await resources('elsewhere', 'other'), []);
});

const refusals: [type: string, id: string, code: string][] = [
  ['', 'x', 'Unimplemented'],
  ['volumes', 'x', 'Unimplemented'],
  ['content/x', digest, 'Unimplemented'],
  ['snapshots', 'x', 'InvalidArgument'],
  ['snapshots/', 'x', 'InvalidArgument'],
  ['snapshots/a/b', 'x', 'InvalidArgument'],
  ['content', 'x', 'InvalidArgument'],
  ['content', 'sha256:../../x', 'InvalidArgument'],
  ['images', '', 'InvalidArgument'],
];

for (const [type, id, code] of refusals)
  test(`not leased: ${type} ${id}`, async (t) => {
    const { create, service, call, resources } = useLeases(t);
    await create('a');
    const failure = await t.throwsAsync(async () => service.addResource({ id: 'a', resource: { type, id } }, call));
    t.like(failure, { code });
    if (code === 'Unimplemented') t.regex(failure.message, /: not implemented$/);
    t.deepEqual(await resources('a'), []);
  });

test('a wrong filter is said', async (t) => {
  const { list } = useLeases(t);
  t.like(await t.throwsAsync(list('id=a')), { code: 'InvalidArgument' });
});
