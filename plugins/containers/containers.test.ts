import test from 'ava';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { useRecords } from '../../test/helpers/records.ts';
import { containersSuite } from '../../test/suites/containers.ts';
import { useSubject } from '../../test/suites/in-process-subject.ts';
import containers from './index.ts';
import { Store } from './store.ts';

containersSuite(test, 'in this thread', (t) =>
  useSubject(t, ContainersDefinition, containers, {
    id: 'io.containerd.service.v1.containers-service',
    noun: 'containers',
  }),
);

test('a container holds its snapshot, by the edges that collection follows', async (t) => {
  const { records, rows } = useRecords(t, 'containers');
  const store = new Store(records);
  const container = {
    id: 'c',
    image: '',
    runtime: { name: 'r', options: undefined },
    spec: { typeUrl: '', value: new Uint8Array() },
    snapshotter: 'native',
    snapshotKey: 'key',
    sandbox: '',
    extensions: {},
    labels: { 'containerd.io/gc.ref.content.x': 'sha256:1', 'containerd.io/gc.ref.snapshot.overlayfs/1': 's' },
  };
  await store.create('n', container);
  const edges = () =>
    rows<{ to_kind: string; to_ns: string; to_id: string }>(
      "SELECT to_kind, to_ns, to_id FROM containers_gc_edge UNION ALL SELECT to_kind, to_ns, to_id FROM records_gc_edge WHERE kind = 'container' ORDER BY 1",
    ).map(({ to_kind, to_ns, to_id }) => `${to_kind} ${to_ns} ${to_id}`);
  t.deepEqual(edges(), ['content n sha256:1', 'snapshot/native n key', 'snapshot/overlayfs n s']);
  await store.update('n', 'c', (current) => ({ ...current, snapshotKey: '', labels: {} }));
  t.deepEqual(edges(), []);
  await store.update('n', 'c', (current) => ({ ...current, labels: container.labels }));
  t.is(edges().length, 2);
  await store.delete('n', 'c');
  t.deepEqual(edges(), []);
});
