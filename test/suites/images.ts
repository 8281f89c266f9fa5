/**
 * What any implementation of containerd.services.images.v1.Images has to do. Facts are containerd 1.6's, observed.
 *
 *     imagesSuite(test, 'in this thread', (t) => ({ client, ...surroundings }));
 */
import type { ExecutionContext, TestFn } from 'ava';
import type { Client } from 'troupe/plugin';
import { ImageCreate, ImageDelete, ImageUpdate } from 'troupe/proto/containerd/services/images/v1/events.ts';
import { Image, type ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { refused } from './refused.ts';
import { type Subject, within } from './subject.ts';

export interface ImagesSubject extends Subject {
  readonly client: Client<typeof ImagesDefinition>;
}

const zeros = `sha256:${'0'.repeat(64)}`;
const ones = `sha256:${'1'.repeat(64)}`;
const target = { digest: zeros, mediaType: 'application/x', size: 3n, annotations: { from: 'here' } };

function image(partial: Parameters<typeof Image.fromPartial>[0]): Image {
  return Image.fromPartial({ target, ...partial });
}

export function imagesSuite(
  test: TestFn,
  altitude: string,
  factory: (t: ExecutionContext) => ImagesSubject | Promise<ImagesSubject>,
): void {
  const suite = (title: string, run: (t: ExecutionContext, subject: ImagesSubject) => Promise<void>) =>
    test(`${altitude}: ${title}`, async (t) => run(t, await factory(t)));

  const create = (subject: ImagesSubject, partial: Parameters<typeof Image.fromPartial>[0], options = {}) =>
    subject.client.create({ image: image(partial), sourceDateEpoch: undefined }, within(subject, options));
  const update = (subject: ImagesSubject, asked: Image | undefined, ...paths: string[]) =>
    subject.client.update({ image: asked, updateMask: paths, sourceDateEpoch: undefined }, within(subject));
  const get = async (subject: ImagesSubject, name: string) =>
    (await subject.client.get({ name }, within(subject))).image!;
  const remove = (subject: ImagesSubject, name: string, digest?: string) =>
    subject.client.delete(
      { name, sync: false, target: digest === undefined ? undefined : { ...target, digest } },
      within(subject),
    );

  suite('what is created is there, with its times', async (t, subject) => {
    const before = BigInt(Date.now() - 1) * 1_000_000n;
    const { image: created } = await create(subject, { name: 'a', labels: { x: 'y', empty: '' } });
    const after = BigInt(Date.now() + 1) * 1_000_000n;
    t.like(created, { name: 'a', labels: { x: 'y' }, target });
    t.deepEqual(created?.labels, { x: 'y' }, 'an empty value is no label');
    const time = created!.createdAt!.seconds * 1_000_000_000n + BigInt(created!.createdAt!.nanos);
    t.true(before <= time && time <= after);
    t.deepEqual(created?.updatedAt, created?.createdAt);
    t.deepEqual(await get(subject, 'a'), created);
    const [event] = await subject.events(subject.namespace, 1);
    t.like(event, { topic: '/images/create', typeUrl: 'containerd.services.images.v1.ImageCreate' });
    t.deepEqual(ImageCreate.decode(event!.value), { name: 'a', labels: { x: 'y' } });
  });

  suite('a name is there once per namespace', async (t, subject) => {
    await create(subject, { name: 'a' });
    await refused(t, () => create(subject, { name: 'a' }), 'AlreadyExists', 'image "a": already exists');
    await t.notThrowsAsync(() => create(subject, { name: 'a' }, { namespace: subject.otherNamespace }));
    await remove(subject, 'a');
    await refused(t, () => get(subject, 'a'), 'NotFound', 'image "a": not found');
    t.is((await subject.client.get({ name: 'a' }, { namespace: subject.otherNamespace })).image?.name, 'a');
  });

  suite('a time may be given instead of now', async (t, subject) => {
    const { image: created } = await subject.client.create(
      { image: image({ name: 'a' }), sourceDateEpoch: { seconds: 5n, nanos: 7 } },
      within(subject),
    );
    t.deepEqual(created?.createdAt, { seconds: 5n, nanos: 7 });
    t.deepEqual(created?.updatedAt, { seconds: 5n, nanos: 7 });
  });

  suite('a time that is none is refused, one at the limit is kept to the nanosecond', async (t, subject) => {
    const at = (seconds: bigint, nanos: number, name = 'a') =>
      subject.client.create({ image: image({ name }), sourceDateEpoch: { seconds, nanos } }, within(subject));
    for (const [seconds, nanos] of [
      [10n ** 18n, 0],
      [-(10n ** 18n), 0],
      [2n ** 63n - 1n, 0],
      [9_223_372_036n, 854_775_808],
      [5n, -1],
      [5n, 1_000_000_000],
    ] as const) {
      const message = `source_date_epoch of ${seconds} s and ${nanos} ns is not a time between the years 1677 and 2262: invalid argument`;
      await refused(t, () => at(seconds, nanos), 'InvalidArgument', message);
    }
    t.deepEqual((await subject.client.list({ filters: [] }, within(subject))).images, []);
    for (const [seconds, nanos, name] of [
      [9_223_372_036n, 854_775_807, 'last'],
      [-9_223_372_037n, 145_224_192, 'first'],
      [0n, 0, 'epoch'],
    ] as const) {
      t.deepEqual((await at(seconds, nanos, name)).image?.createdAt, { seconds, nanos });
      t.deepEqual((await get(subject, name)).createdAt, { seconds, nanos });
    }
  });

  suite('names are free text', async (t, subject) => {
    for (const name of ['a b', 'x'.repeat(3000), 'ü/☃:1@2', '"', '../..', '__proto__', 'a\nb'])
      t.is((await create(subject, { name })).image?.name, name);
    t.is((await subject.client.list({ filters: [] }, within(subject))).images.length, 7);
  });

  const invalid: readonly [string, Parameters<typeof Image.fromPartial>[0], string][] = [
    ['no name', {}, 'Image.Name required'],
    [
      'no target',
      { name: 'a', target: undefined as never },
      'Target.Digest "" invalid: invalid checksum digest format',
    ],
    [
      'a digest that is none',
      { name: 'a', target: { ...target, digest: 'foo' } },
      'Target.Digest "foo" invalid: invalid checksum digest format',
    ],
    ['no size', { name: 'a', target: { ...target, size: 0n } }, 'Target.Size must be greater than zero'],
    ['a negative size', { name: 'a', target: { ...target, size: -1n } }, 'Target.Size must be greater than zero'],
    ['no media type', { name: 'a', target: { ...target, mediaType: '' } }, 'Target.MediaType must be set'],
    [
      'a long label',
      { name: 'a', labels: { x: 'y'.repeat(4096) } },
      'image.Labels: label key and value greater than maximum size (4096 bytes), key: x',
    ],
  ];
  for (const [what, partial, message] of invalid) {
    suite(`refused, and no trace: ${what}`, async (t, subject) => {
      await refused(t, () => create(subject, partial), 'InvalidArgument', `${message}: invalid argument`);
      t.deepEqual((await subject.client.list({ filters: [] }, within(subject))).images, []);
    });
  }

  suite('the namespace must be there and well formed', async (t, subject) => {
    for (const call of [
      (options: object) => subject.client.get({ name: 'a' }, options),
      (options: object) => subject.client.list({ filters: [] }, options),
      (options: object) => subject.client.create({ image: image({ name: 'a' }), sourceDateEpoch: undefined }, options),
      (options: object) =>
        subject.client.update({ image: image({ name: 'a' }), updateMask: [], sourceDateEpoch: undefined }, options),
      (options: object) => subject.client.delete({ name: 'a', sync: false, target: undefined }, options),
    ]) {
      await refused(t, () => call({}), 'FailedPrecondition', 'namespace is required: failed precondition');
      await refused(t, () => call({ namespace: '../x' }), 'InvalidArgument');
    }
  });

  suite('without a mask everything but the creation time is replaced', async (t, subject) => {
    const { image: created } = await create(subject, { name: 'a', labels: { old: '1' } });
    const { image: updated } = await update(
      subject,
      image({
        name: 'a',
        target: { ...target, digest: ones, annotations: {} },
        labels: { new: '1', empty: '' },
        createdAt: { seconds: 7n },
      }),
    );
    t.like(updated, { createdAt: created!.createdAt, target: { digest: ones, annotations: {} } });
    t.deepEqual(updated?.labels, { new: '1' });
    t.notDeepEqual(updated?.updatedAt, created?.updatedAt);
    t.deepEqual(await get(subject, 'a'), updated);
    const event = (await subject.events(subject.namespace, 2)).at(-1)!;
    t.is(event.topic, '/images/update');
    t.deepEqual(ImageUpdate.decode(event.value), { name: 'a', labels: { new: '1' } });
  });

  const masked: readonly [string, string[], Parameters<typeof Image.fromPartial>[0], object, object][] = [
    [
      'labels.KEY sets one',
      ['labels.k.d'],
      { labels: { 'k.d': '2', other: '3' } },
      { x: 'y', 'k.d': '2' },
      { from: 'here' },
    ],
    ['labels.KEY with nothing deletes one', ['labels.x'], {}, {}, { from: 'here' }],
    ['a name of Object.prototype is a key like any', ['labels.constructor'], {}, { x: 'y' }, { from: 'here' }],
    ['labels replaces all', ['labels'], { labels: { n: '1', empty: '' } }, { n: '1' }, { from: 'here' }],
    [
      'target with its annotations',
      ['target'],
      { labels: { no: '1' }, target: { ...target, annotations: { t: '1' } } },
      { x: 'y' },
      { t: '1' },
    ],
    [
      'annotations replaces all',
      ['annotations'],
      { target: { annotations: { y: '1', empty: '' } } },
      { x: 'y' },
      { y: '1' },
    ],
    [
      'annotations.KEY sets one',
      ['annotations.z'],
      { target: { annotations: { z: '1' } } },
      { x: 'y' },
      { from: 'here', z: '1' },
    ],
    ['annotations.KEY with nothing deletes one', ['annotations.from'], {}, { x: 'y' }, {}],
    ['several paths', ['labels.x', 'labels.b', 'annotations.from'], { labels: { b: '2' } }, { b: '2' }, {}],
  ];
  for (const [title, paths, partial, labels, annotations] of masked) {
    suite(`mask: ${title}`, async (t, subject) => {
      await create(subject, { name: 'a', labels: { x: 'y' } });
      const { image: updated } = await update(subject, Image.fromPartial({ name: 'a', ...partial }), ...paths);
      t.deepEqual(updated?.labels, labels as never);
      t.deepEqual(updated?.target?.annotations, annotations as never);
      t.is(updated?.target?.digest, zeros);
      t.deepEqual(await get(subject, 'a'), updated);
    });
  }

  suite('updates that are refused change nothing', async (t, subject) => {
    const { image: created } = await create(subject, { name: 'a', labels: { x: 'y' } });
    const bad = Image.fromPartial({ name: 'a', target: { digest: 'foo' }, labels: { l: 'x'.repeat(5000) } });
    for (const path of ['name', '*', 'target.digest', 'created_at', 'labels.', '.', '', 'labels.l', 'target'])
      await refused(t, () => update(subject, bad, path), 'InvalidArgument');
    await refused(t, () => update(subject, bad), 'InvalidArgument');
    await refused(t, () => update(subject, undefined), 'InvalidArgument', 'Image.Name required: invalid argument');
    await refused(t, () => update(subject, image({ name: 'zz' })), 'NotFound', 'image "zz": not found');
    t.deepEqual(await get(subject, 'a'), created);
  });

  suite('of updates at the same time none is lost', async (t, subject) => {
    await create(subject, { name: 'a' });
    const keys = Array.from({ length: 20 }, (_, i) => `k${i}`);
    await Promise.all(
      keys.map((key) => update(subject, Image.fromPartial({ name: 'a', labels: { [key]: '1' } }), `labels.${key}`)),
    );
    t.deepEqual(Object.keys((await get(subject, 'a')).labels).sort(), keys.sort());
  });

  suite('lists by filters', async (t, subject) => {
    await create(subject, { name: 'a', labels: { n: '1', 'k.d': '' } });
    await create(subject, {
      name: 'b',
      target: { ...target, digest: ones, mediaType: 'application/y', annotations: {} },
      labels: { n: '2' },
    });
    const list = async (...filters: string[]) =>
      (await subject.client.list({ filters }, within(subject))).images.map(({ name }) => name);
    t.deepEqual(await list(), ['a', 'b']);
    t.deepEqual(await list('name==a'), ['a']);
    t.deepEqual(await list('name~=/^[bc]/'), ['b']);
    t.deepEqual(await list('target.digest~=^sha256:00'), ['a']);
    t.deepEqual(await list('target.mediatype==application/y'), ['b']);
    t.deepEqual(await list('labels.n==2'), ['b']);
    t.deepEqual(await list('labels."n"'), ['a', 'b']);
    t.deepEqual(await list('annotations.from'), ['a']);
    t.deepEqual(await list('name==a', 'name==b'), ['a', 'b']);
    t.deepEqual(await list('name==a,labels.n==2'), []);
    t.deepEqual(await list('bogus'), []);
    await refused(t, () => list('name=='), 'InvalidArgument');
    t.deepEqual((await subject.client.list({ filters: [] }, { namespace: 'unheard-of' })).images, []);
  });

  suite('more than a page is listed in order', async (t, subject) => {
    const names = Array.from({ length: 1203 }, (_, i) => `image-${String(i).padStart(5, '0')}`);
    await Promise.all(names.map((name) => create(subject, { name })));
    t.deepEqual(
      (await subject.client.list({ filters: [] }, within(subject))).images.map(({ name }) => name),
      names,
    );
  });

  suite('deleting, also only while it points there', async (t, subject) => {
    await create(subject, { name: 'a' });
    await refused(t, () => remove(subject, 'a', ones), 'NotFound');
    t.is((await get(subject, 'a')).name, 'a');
    await remove(subject, 'a', zeros);
    await refused(t, () => remove(subject, 'a'), 'NotFound', 'image "a": not found');
    const event = (await subject.events(subject.namespace, 2)).at(-1)!;
    t.is(event.topic, '/images/delete');
    t.deepEqual(ImageDelete.decode(event.value), { name: 'a' });
  });

  suite('an image that expires is kept by a lease, any other by itself', async (t, subject) => {
    await subject.createLease(subject.namespace, 'l');
    const expires = { 'containerd.io/gc.expire': '2001-01-01T00:00:00Z' };
    await create(subject, { name: 'stays' }, { lease: 'l' });
    await create(subject, { name: 'leased', labels: expires }, { lease: 'l' });
    await create(subject, { name: 'expired', labels: expires });
    await create(subject, { name: 'later', labels: { 'containerd.io/gc.expire': '2999-01-01T00:00:00+01:00' } });
    await create(subject, { name: 'unreadable', labels: { 'containerd.io/gc.expire': 'soon' } });
    t.deepEqual(await subject.leaseResources(subject.namespace, 'l'), [{ type: 'images', id: 'leased' }]);
    await refused(t, () => create(subject, { name: 'n', labels: expires }, { lease: 'none' }), 'NotFound');
    await subject.events(subject.namespace, 5);
    await subject.collect();
    const { images } = await subject.client.list({ filters: [] }, within(subject));
    t.deepEqual(
      images.map(({ name }) => name),
      ['later', 'leased', 'stays', 'unreadable'],
    );
    const [event] = await subject.events(subject.namespace, 1);
    t.is(event?.topic, '/images/delete');
    t.deepEqual(ImageDelete.decode(event!.value), { name: 'expired' });
    await subject.client.delete({ name: 'leased', sync: false, target: undefined }, within(subject, { lease: 'l' }));
    t.deepEqual(await subject.leaseResources(subject.namespace, 'l'), []);
  });
}
