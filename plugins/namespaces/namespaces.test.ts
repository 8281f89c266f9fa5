import test, { type ExecutionContext } from 'ava';
import type { Call } from 'troupe/plugin';
import { NamespaceCreate, NamespaceDelete, NamespaceUpdate } from 'troupe/proto/containerd/events/namespace.ts';
import { useRecords } from '../../test/helpers/records.ts';
import { namespacesService } from './service.ts';
import { NamespaceStore } from './store.ts';

const call = {} as Call;

function useNamespaces(t: ExecutionContext, ...others: string[]) {
  const test = useRecords(t, 'namespaces', ...others);
  const service = namespacesService(new NamespaceStore(test.records));
  const list = async (filter = '') => (await service.list({ filter }, call)).namespaces;
  const create = async (name: string, labels = {}) => service.create({ namespace: { name, labels } }, call);
  const events = () =>
    test
      .rows<{ ns: string; topic: string; value: Uint8Array }>('SELECT * FROM records_outbox ORDER BY seq')
      .map(({ ns, topic, value }) => ({ ns, topic, value }));
  return { ...test, service, list, create, events };
}

test('made, listed, found, told', async (t) => {
  const { create, list, service, events } = useNamespaces(t);
  t.deepEqual(await create('b', { a: '1', empty: '' }), { namespace: { name: 'b', labels: { a: '1' } } });
  await create('a');
  t.deepEqual(await list(), [
    { name: 'a', labels: {} },
    { name: 'b', labels: { a: '1' } },
  ]);
  t.deepEqual(await list('labels.a==1'), [{ name: 'b', labels: { a: '1' } }]);
  t.deepEqual(await service.get({ name: 'b' }, call), { namespace: { name: 'b', labels: { a: '1' } } });
  const [first] = events();
  t.like(first, { ns: 'b', topic: '/namespaces/create' });
  t.deepEqual(NamespaceCreate.decode(first!.value), { name: 'b', labels: { a: '1' } });
});

test('one that is not there has no labels, and is no failure', async (t) => {
  const { service } = useNamespaces(t);
  t.deepEqual(await service.get({ name: 'nobody' }, call), { namespace: { name: 'nobody', labels: {} } });
});

test('twice is a conflict', async (t) => {
  const { create, events } = useNamespaces(t);
  await create('x');
  t.like(await t.throwsAsync(create('x')), { code: 'AlreadyExists', message: 'namespace "x": already exists' });
  t.is(events().length, 1);
});

for (const name of ['', 'a/b', 'version', 'x'.repeat(77)])
  test(`no namespace: ${name.slice(0, 10) || '(empty)'}`, async (t) => {
    const { create, service, list } = useNamespaces(t);
    t.like(await t.throwsAsync(create(name)), { code: 'InvalidArgument' });
    t.like(await t.throwsAsync(async () => service.delete({ name }, call)), { code: 'InvalidArgument' });
    t.like(
      await t.throwsAsync(async () =>
        service.update({ namespace: { name, labels: {} }, updateMask: ['labels.a'] }, call),
      ),
      {
        code: 'InvalidArgument',
      },
    );
    t.deepEqual(await list(), []);
  });

test('labels that are too long leave no trace', async (t) => {
  const { create, list, service } = useNamespaces(t);
  const labels = { long: 'x'.repeat(4096) };
  t.like(await t.throwsAsync(create('x', labels)), {
    code: 'InvalidArgument',
    message:
      'namespace.Labels: label key and value greater than maximum size (4096 bytes), key: long: invalid argument',
  });
  for (const updateMask of [undefined, ['labels.long']])
    t.like(await t.throwsAsync(async () => service.update({ namespace: { name: 'x', labels }, updateMask }, call)), {
      code: 'InvalidArgument',
    });
  t.deepEqual(await list(), []);
});

test('a mask sets and deletes labels one by one, without one all are replaced', async (t) => {
  const { create, service, list, events } = useNamespaces(t);
  await create('x', { a: '1', b: '2', 'dotted.key/x': '3' });
  const update = async (labels: { [key: string]: string }, updateMask?: string[]) =>
    (await service.update({ namespace: { name: 'x', labels }, updateMask }, call)).namespace!.labels;
  t.deepEqual(await update({ a: '', c: '4', ignored: 'x' }, ['labels.a', 'labels.c', 'labels.dotted.key/x']), {
    b: '2',
    c: '4',
  });
  t.deepEqual(NamespaceUpdate.decode(events().at(-1)!.value), { name: 'x', labels: { a: '', c: '4', ignored: 'x' } });
  t.deepEqual(await update({ only: '1' }), { only: '1' });
  t.deepEqual(await list(), [{ name: 'x', labels: { only: '1' } }]);
  for (const path of ['name', '*', 'labels', 'labels.'])
    t.like(await t.throwsAsync(update({ z: '1' }, [path])), { code: 'InvalidArgument' });
  t.deepEqual(await list(), [{ name: 'x', labels: { only: '1' } }]);
});

test('updating one that is not there makes it', async (t) => {
  const { service, list } = useNamespaces(t);
  await service.update({ namespace: { name: 'new', labels: { a: '1' } }, updateMask: ['labels.a'] }, call);
  t.deepEqual(await list(), [{ name: 'new', labels: { a: '1' } }]);
});

test('updates at the same time are all there afterwards', async (t) => {
  const { service, create } = useNamespaces(t);
  await create('x');
  const keys = Array.from({ length: 8 }, (_, index) => `k${index}`);
  await Promise.all(
    keys.map((key) =>
      service.update({ namespace: { name: 'x', labels: { [key]: '1' } }, updateMask: [`labels.${key}`] }, call),
    ),
  );
  const { namespace } = await service.get({ name: 'x' }, call);
  t.deepEqual(Object.keys(namespace!.labels).sort(), keys);
});

test('only an empty one goes, and it takes its leases with it', async (t) => {
  const { service, create, list, as, rows, events, engine } = useNamespaces(t, 'leases');
  engine.database.exec(`
    CREATE TABLE things_thing (kind TEXT, ns TEXT, id TEXT);
    CREATE VIEW things_gc_node (kind, ns, id) AS SELECT kind, ns, id FROM things_thing;
    INSERT INTO things_thing VALUES ('snapshot/native', 'x', '1'), ('snapshot/overlayfs', 'x', '1'), ('container', 'x', '1'), ('image', 'x', '1'),
      ('content', 'x', '1'), ('content', 'x', '2'), ('ingest', 'x', '1'), ('image', 'y', '1')`);
  await create('x');
  const lease = {
    sql: "INSERT INTO leases_lease (ns, id, created_at) VALUES (?, 'l', 1)",
  };
  await as('leases').commit({ statements: ['x', 'y'].map((ns) => ({ ...lease, params: [ns] })) });
  const remove = async () => service.delete({ name: 'x' }, call);
  t.like(await t.throwsAsync(remove), {
    code: 'FailedPrecondition',
    message:
      'namespace "x" must be empty, but it still has images, blobs, containers, snapshots on "native" snapshotter, snapshots on "overlayfs" snapshotter: failed precondition',
  });
  engine.database.exec("DELETE FROM things_thing WHERE ns = 'x' AND kind <> 'ingest'");
  await remove();
  t.deepEqual(await list(), []);
  t.deepEqual(
    rows<{ ns: string }>('SELECT ns FROM leases_lease').map(({ ns }) => ns),
    ['y'],
  );
  t.like(events().at(-1), { ns: 'x', topic: '/namespaces/delete' });
  t.deepEqual(NamespaceDelete.decode(events().at(-1)!.value), { name: 'x' });
  t.like(await t.throwsAsync(remove), { code: 'NotFound', message: 'namespace "x": not found' });
});

test('ten thousand are listed', async (t) => {
  const { records, list } = useNamespaces(t);
  await records.commit({
    statements: [
      {
        sql: "INSERT INTO records_namespace (name) SELECT 'n' || value FROM json_each(?)",
        params: [JSON.stringify(Array.from({ length: 10_000 }, (_, index) => index))],
      },
    ],
  });
  t.is((await list()).length, 10_000);
  t.is((await list('name~=^n99.$')).length, 10);
});
