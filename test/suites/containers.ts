/**
 * What any implementation of containerd.services.containers.v1.Containers has to do. Facts are containerd 1.6's, observed.
 *
 *     containersSuite(test, 'in this thread', (t) => ({ client, ...surroundings }));
 */
import type { ExecutionContext, TestFn } from 'ava';
import type { CallOptions, Client } from 'troupe/plugin';
import { ContainerCreate, ContainerDelete, ContainerUpdate } from 'troupe/proto/containerd/events/container.ts';
import { Container, type ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { refused } from './refused.ts';
import { type Subject, within } from './subject.ts';

export interface ContainersSubject extends Subject {
  readonly client: Client<typeof ContainersDefinition>;
}

type Partial = Parameters<typeof Container.fromPartial>[0];

const any = (typeUrl: string, text = '{}') => ({ typeUrl, value: Uint8Array.from(Buffer.from(text)) });
const basic = { id: 'c1', runtime: { name: 'io.containerd.runc.v2' }, spec: any('types.containerd.io/Spec') };
const full: Partial = {
  ...basic,
  image: 'img',
  labels: { a: 'b', empty: '' },
  snapshotter: 'overlayfs',
  snapshotKey: 'k',
  runtime: { name: 'io.containerd.runc.v2', options: any('options', '\0\xff') },
  extensions: { 'x.y': any('extension', 'one'), __proto__x: any('') },
  sandbox: 'box',
};

export function containersSuite(
  test: TestFn,
  altitude: string,
  factory: (t: ExecutionContext) => ContainersSubject | Promise<ContainersSubject>,
): void {
  const suite = (title: string, run: (t: ExecutionContext, subject: ContainersSubject) => Promise<void>) =>
    test(`${altitude}: ${title}`, async (t) => run(t, await factory(t)));

  const create = async (subject: ContainersSubject, partial: Partial, options: CallOptions = {}) =>
    plain(
      (await subject.client.create({ container: Container.fromPartial(partial) }, within(subject, options))).container,
    );
  const update = async (subject: ContainersSubject, partial: Partial | undefined, ...paths: string[]) =>
    plain(
      (
        await subject.client.update(
          { container: partial && Container.fromPartial(partial), updateMask: paths },
          within(subject),
        )
      ).container,
    );
  const get = async (subject: ContainersSubject, id: string) =>
    plain((await subject.client.get({ id }, within(subject))).container);
  const remove = (subject: ContainersSubject, id: string) => subject.client.delete({ id }, within(subject));

  suite('what is created is there, byte for byte, with its times', async (t, subject) => {
    const before = BigInt(Date.now() - 1) * 1_000_000n;
    const created = await create(subject, { ...full, createdAt: { seconds: 4n } });
    const after = BigInt(Date.now() + 1) * 1_000_000n;
    const { createdAt, updatedAt, ...rest } = created;
    const { createdAt: _, updatedAt: __, ...expected } = plain(Container.fromPartial({ ...full, labels: { a: 'b' } }));
    t.deepEqual(rest, expected);
    const time = createdAt!.seconds * 1_000_000_000n + BigInt(createdAt!.nanos);
    t.true(before <= time && time <= after);
    t.deepEqual(updatedAt, createdAt);
    t.deepEqual(await get(subject, 'c1'), created);
    const [event] = await subject.events(subject.namespace, 1);
    t.like(event, { topic: '/containers/create', typeUrl: 'containerd.events.ContainerCreate' });
    t.deepEqual(ContainerCreate.decode(Uint8Array.from(event!.value)), {
      id: 'c1',
      image: 'img',
      runtime: created.runtime,
    });
  });

  suite('specs and extensions are opaque, of any type and size', async (t, subject) => {
    const spec = { typeUrl: '', value: new Uint8Array(5 << 20).fill(0xff) };
    const created = await create(subject, { ...basic, spec, extensions: { e: {}, constructor: any('t') } });
    t.deepEqual(created.spec, spec);
    t.deepEqual(Object.keys((await get(subject, 'c1')).extensions).sort(), ['constructor', 'e']);
  });

  suite('an id is there once per namespace', async (t, subject) => {
    await create(subject, basic);
    await refused(t, () => create(subject, basic), 'AlreadyExists', 'container "c1": already exists');
    await t.notThrowsAsync(() => create(subject, basic, { namespace: subject.otherNamespace }));
    await remove(subject, 'c1');
    await refused(
      t,
      () => get(subject, 'c1'),
      'NotFound',
      `container "c1" in namespace "${subject.namespace}": not found`,
    );
    t.is((await subject.client.get({ id: 'c1' }, { namespace: subject.otherNamespace })).container?.id, 'c1');
  });

  const invalid: readonly [string, Partial | undefined, string][] = [
    ['nothing at all', undefined, 'container.ID: identifier must not be empty'],
    ['no id', { ...basic, id: '' }, 'container.ID: identifier must not be empty'],
    [
      'a path as id',
      { ...basic, id: '../../x' },
      'container.ID: identifier "../../x" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$',
    ],
    [
      'NUL in the id',
      { ...basic, id: 'a\0b' },
      'container.ID: identifier "a\\x00b" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$',
    ],
    [
      'an id of 77',
      { ...basic, id: 'a'.repeat(77) },
      `container.ID: identifier "${'a'.repeat(77)}" greater than maximum length (76 characters)`,
    ],
    ['no runtime', { ...basic, runtime: undefined as never }, 'container.Runtime.Name must be set'],
    ['a runtime without a name', { ...basic, runtime: { name: '' } }, 'container.Runtime.Name must be set'],
    ['no spec', { ...basic, spec: undefined as never }, 'container.Spec must be set'],
    [
      'a snapshot without snapshotter',
      { ...basic, snapshotKey: 'k' },
      'container.Snapshotter must be set if container.SnapshotKey is set',
    ],
    [
      'an extension without a name',
      { ...basic, extensions: { '': any('t') } },
      'container.Extension keys must not be zero-length',
    ],
    [
      'a long label',
      { ...basic, labels: { l: 'x'.repeat(4096) } },
      'containers.Labels: label key and value greater than maximum size (4096 bytes), key: l',
    ],
  ];
  for (const [what, partial, message] of invalid) {
    suite(`refused, and no trace: ${what}`, async (t, subject) => {
      await refused(
        t,
        () => subject.client.create({ container: partial && Container.fromPartial(partial) }, within(subject)),
        'InvalidArgument',
        `create container failed validation: ${message}: invalid argument`,
      );
      t.deepEqual((await subject.client.list({ filters: [] }, within(subject))).containers, []);
    });
  }

  suite('the namespace must be there and well formed', async (t, subject) => {
    const container = Container.fromPartial(basic);
    for (const call of [
      (options: CallOptions) => subject.client.get({ id: 'a' }, options),
      (options: CallOptions) => subject.client.list({ filters: [] }, options),
      (options: CallOptions) => all(subject.client.listStream({ filters: [] }, options)),
      (options: CallOptions) => subject.client.create({ container }, options),
      (options: CallOptions) => subject.client.update({ container, updateMask: [] }, options),
      (options: CallOptions) => subject.client.delete({ id: 'a' }, options),
    ]) {
      await refused(t, () => call({}), 'FailedPrecondition', 'namespace is required: failed precondition');
      await refused(t, () => call({ namespace: 'a..b' }), 'InvalidArgument');
    }
  });

  suite('without a mask all that may change is replaced', async (t, subject) => {
    const created = await create(subject, full);
    const updated = await update(subject, {
      ...basic,
      snapshotter: 'overlayfs',
      image: 'img2',
      labels: { n: '1' },
      sandbox: 'other',
    });
    t.like(updated, {
      image: 'img2',
      snapshotter: 'overlayfs',
      snapshotKey: '',
      sandbox: 'box',
      createdAt: created.createdAt,
    });
    t.deepEqual(updated.labels, { n: '1' });
    t.deepEqual(updated.extensions, {});
    t.deepEqual(updated.runtime, created.runtime, 'options are those of the creation');
    t.notDeepEqual(updated.updatedAt, created.updatedAt);
    t.deepEqual(await get(subject, 'c1'), updated);
    const event = (await subject.events(subject.namespace, 2)).at(-1)!;
    t.is(event.topic, '/containers/update');
    t.deepEqual(ContainerUpdate.decode(event.value), { id: 'c1', image: 'img2', labels: { n: '1' }, snapshotKey: '' });
  });

  suite('without a mask snapshotter and runtime must be repeated', async (t, subject) => {
    const created = await create(subject, full);
    await refused(
      t,
      () => update(subject, basic),
      'InvalidArgument',
      'container.Snapshotter field is immutable: invalid argument',
    );
    await refused(
      t,
      () => update(subject, { ...full, runtime: { name: 'other' } }),
      'InvalidArgument',
      'container.Runtime.Name field is immutable: invalid argument',
    );
    t.deepEqual(await get(subject, 'c1'), created);
  });

  const masked: readonly [string, string[], Partial, Partial][] = [
    ['labels replaces all', ['labels'], { labels: { q: '1', empty: '' } }, { labels: { q: '1' } }],
    ['labels.KEY sets one', ['labels.k.d'], { labels: { 'k.d': '1', other: '2' } }, { labels: { a: 'b', 'k.d': '1' } }],
    ['labels.KEY with nothing deletes one', ['labels.a'], {}, { labels: {} }],
    ['spec', ['spec'], { spec: any('new', 'yy') }, { spec: any('new', 'yy') }],
    ['extensions replaces all', ['extensions'], { extensions: { f: any('f') } }, { extensions: { f: any('f') } }],
    [
      'extensions.KEY sets one',
      ['extensions.g.h'],
      { extensions: { 'g.h': any('g') } },
      { extensions: { ...full.extensions, 'g.h': any('g') } },
    ],
    ['extensions.KEY with nothing deletes one', ['extensions.x.y'], {}, { extensions: { __proto__x: any('') } }],
    ['image', ['image'], { image: 'img3', labels: { no: '1' } }, { image: 'img3' }],
    ['snapshotkey', ['snapshotkey'], { snapshotKey: 'k3' }, { snapshotKey: 'k3' }],
    [
      'what it does not name is not looked at',
      ['image'],
      { image: '', snapshotter: 'x', runtime: { name: 'x' } },
      { image: '' },
    ],
  ];
  for (const [title, paths, partial, expected] of masked) {
    suite(`mask: ${title}`, async (t, subject) => {
      const created = await create(subject, full);
      const updated = await update(subject, { id: 'c1', ...partial }, ...paths);
      const { updatedAt: _, ...rest } = updated;
      const { updatedAt: __, ...same } = plain(Container.fromPartial({ ...created, ...expected }));
      t.deepEqual(rest, same);
      t.deepEqual(await get(subject, 'c1'), updated);
    });
  }

  suite('updates that are refused change nothing', async (t, subject) => {
    const created = await create(subject, full);
    const long = { l: 'x'.repeat(5000) };
    for (const path of [
      'id',
      '*',
      'snapshotter',
      'snapshot_key',
      'runtime',
      'runtime.name',
      'sandbox',
      'created_at',
      'labels.',
      '',
      'spec',
      'labels.l',
      'labels',
    ])
      await refused(t, () => update(subject, { id: 'c1', labels: long }, path), 'InvalidArgument');
    await refused(
      t,
      () => update(subject, { ...full, spec: undefined as never }),
      'InvalidArgument',
      'update failed validation: container.Spec must be set: invalid argument',
    );
    await refused(t, () => update(subject, undefined), 'InvalidArgument', 'Container.ID required: invalid argument');
    await refused(t, () => update(subject, { ...full, id: 'c2' }), 'NotFound');
    t.deepEqual(await get(subject, 'c1'), created);
  });

  suite('of updates at the same time none is lost', async (t, subject) => {
    await create(subject, basic);
    const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);
    await Promise.all(keys.map((key) => update(subject, { id: 'c1', labels: { [key]: '1' } }, `labels.${key}`)));
    t.deepEqual(Object.keys((await get(subject, 'c1')).labels).sort(), keys.sort());
  });

  suite('lists by filters, whole and as a stream', async (t, subject) => {
    await create(subject, { ...full, id: 'a', labels: { z: '', 'k.d': '1' } });
    await create(subject, { ...basic, id: 'b', runtime: { name: 'other' }, labels: { z: '1' } });
    const list = async (...filters: string[]) => {
      const { containers } = await subject.client.list({ filters }, within(subject));
      const streamed = await all(subject.client.listStream({ filters }, within(subject)));
      t.deepEqual(
        streamed.map(({ container }) => plain(container)),
        containers.map(plain),
      );
      return containers.map(({ id }) => id);
    };
    t.deepEqual(await list(), ['a', 'b']);
    t.deepEqual(await list('id==a'), ['a']);
    t.deepEqual(await list('id~=^[bc]'), ['b']);
    t.deepEqual(await list('runtime.name==other'), ['b']);
    t.deepEqual(await list('image==img'), ['a']);
    t.deepEqual(await list('labels.z'), ['b']);
    t.deepEqual(await list('labels."k.d"==1'), ['a']);
    t.deepEqual(await list('id==a', 'id==b'), ['a', 'b']);
    t.deepEqual(await list('id==a,image==none'), []);
    t.deepEqual(await list('bogus'), []);
    await refused(t, () => subject.client.list({ filters: ['=='] }, within(subject)), 'InvalidArgument');
    await refused(t, () => all(subject.client.listStream({ filters: ['=='] }, within(subject))), 'InvalidArgument');
  });

  suite('more than a page is listed in order, and a stream may be left early', async (t, subject) => {
    const ids = Array.from({ length: 503 }, (_, i) => `c${String(i).padStart(5, '0')}`);
    await Promise.all(ids.map((id) => create(subject, { ...basic, id })));
    t.deepEqual(
      (await subject.client.list({ filters: [] }, within(subject))).containers.map(({ id }) => id),
      ids,
    );
    for await (const { container } of subject.client.listStream({ filters: [] }, within(subject))) {
      t.is(container?.id, ids[0]);
      break;
    }
  });

  suite('deleting', async (t, subject) => {
    await create(subject, basic);
    await remove(subject, 'c1');
    const event = (await subject.events(subject.namespace, 2)).at(-1)!;
    t.is(event.topic, '/containers/delete');
    t.deepEqual(ContainerDelete.decode(event.value), { id: 'c1' });
    for (const id of ['c1', '', '../x', 'a\0b']) await refused(t, () => remove(subject, id), 'NotFound');
  });

  suite('a container is never collected', async (t, subject) => {
    await create(subject, full);
    await subject.collect();
    t.is((await get(subject, 'c1')).id, 'c1');
  });
}

/** The same container with bytes of one class: what the wire hands out as Buffer and the test makes as Uint8Array would not be equal. */
function plain(container: Container | undefined): Container {
  return Container.decode(Uint8Array.from(Container.encode(container!).finish()));
}

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const result: T[] = [];
  for await (const item of stream) result.push(item);
  return result;
}
