/**
 * What any implementation of containerd.services.content.v1.Content has to do, but for Write, which is in content-write.ts and content-commit.ts. Facts are
 * containerd 1.6's, observed.
 *
 *     contentSuite(test, 'in this thread', (t) => ({ client, ...surroundings }));
 */
import { createHash } from 'node:crypto';
import type { ExecutionContext, TestFn } from 'ava';
import type { CallOptions, Client } from 'troupe/plugin';
import { ContentDelete } from 'troupe/proto/containerd/events/content.ts';
import {
  type ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { contentCommitSuite } from './content-commit.ts';
import { contentWriteSuite } from './content-write.ts';
import { refused } from './refused.ts';
import { type Subject, within } from './subject.ts';

export interface ContentSubject extends Subject {
  readonly client: Client<typeof ContentDefinition>;
}

export type ContentFactory = (t: ExecutionContext) => ContentSubject | Promise<ContentSubject>;

export function sha256(data: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

export const zeros = `sha256:${'0'.repeat(64)}`;

let counter = 0;

/** Stores content the plain way and returns its digest. */
export async function store(
  subject: ContentSubject,
  data: Uint8Array | string,
  options: CallOptions = {},
  labels: { [key: string]: string } = {},
): Promise<string> {
  const bytes = Buffer.from(data);
  async function* requests() {
    yield WriteContentRequest.fromPartial({
      action: WriteAction.COMMIT,
      ref: `store-${counter++}`,
      data: bytes,
      labels,
    });
  }
  for await (const response of subject.client.write(requests(), within(subject, options))) return response.digest;
  throw new Error('no answer to a commit');
}

export async function read(
  subject: ContentSubject,
  digest: string,
  offset = 0,
  size = 0,
  options: CallOptions = {},
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let position = BigInt(offset);
  const request = { digest, offset: BigInt(offset), size: BigInt(size) };
  for await (const piece of subject.client.read(request, within(subject, options))) {
    if (piece.offset !== position) throw new Error(`a piece at ${piece.offset} instead of ${position}`);
    position += BigInt(piece.data.length);
    pieces.push(piece.data);
  }
  return Buffer.concat(pieces);
}

export function contentSuite(test: TestFn, altitude: string, factory: ContentFactory): void {
  const suite = (title: string, run: (t: ExecutionContext, subject: ContentSubject) => Promise<void>) =>
    test(`${altitude}: ${title}`, async (t) => run(t, await factory(t)));

  const info = async (subject: ContentSubject, digest: string, options: CallOptions = {}) =>
    (await subject.client.info({ digest }, within(subject, options))).info!;
  const update = async (
    subject: ContentSubject,
    digest: string,
    labels: { [key: string]: string } | undefined,
    ...paths: string[]
  ) => {
    const asked = labels && { digest, size: 0n, createdAt: undefined, updatedAt: undefined, labels };
    return (await subject.client.update({ info: asked, updateMask: paths }, within(subject))).info!;
  };
  const list = async (subject: ContentSubject, filters: string[] = [], options: CallOptions = {}) => {
    const messages = [];
    for await (const message of subject.client.list({ filters }, within(subject, options))) messages.push(message.info);
    return messages;
  };

  suite('what is stored can be read, with its size and times', async (t, subject) => {
    const before = BigInt(Date.now() - 1) * 1_000_000n;
    const digest = await store(subject, 'hello world', {}, { a: 'b', empty: '' });
    const after = BigInt(Date.now() + 1) * 1_000_000n;
    t.is(digest, sha256('hello world'));
    const found = await info(subject, digest);
    t.like(found, { digest, size: 11n });
    t.deepEqual(found.labels, { a: 'b' }, 'an empty value is no label');
    const time = found.createdAt!.seconds * 1_000_000_000n + BigInt(found.createdAt!.nanos);
    t.true(before <= time && time <= after);
    t.deepEqual(found.updatedAt, found.createdAt);
    t.is((await read(subject, digest)).toString(), 'hello world');
  });

  const ranges: readonly [number, number, string][] = [
    [0, 0, 'hello world'],
    [5, 3, ' wo'],
    [5, 100, ' world'],
    [11, 0, ''],
    [11, 5, ''],
    [10, 1, 'd'],
    [1, Number.MAX_SAFE_INTEGER, 'ello world'],
  ];
  suite('ranges are cut to what there is', async (t, subject) => {
    const digest = await store(subject, 'hello world');
    for (const [offset, size, expected] of ranges)
      t.is((await read(subject, digest, offset, size)).toString(), expected, `${offset}+${size}`);
  });

  suite('ranges that are none', async (t, subject) => {
    const digest = await store(subject, 'hello world');
    await refused(t, () => read(subject, digest, 12), 'OutOfRange');
    await refused(t, () => read(subject, digest, -1), 'OutOfRange');
    await refused(t, () => read(subject, digest, 0, -1), 'OutOfRange');
    await refused(t, () => read(subject, digest, Number.MAX_SAFE_INTEGER, 1), 'OutOfRange');
  });

  suite('megabytes come in pieces and in order; an empty blob in none', async (t, subject) => {
    const data = Buffer.alloc((5 << 20) + 12345);
    for (let i = 0; i < data.length; i += 4) data.writeUInt32LE((i * 2654435761) >>> 0, Math.min(i, data.length - 4));
    const digest = await store(subject, data);
    t.true((await read(subject, digest)).equals(data));
    t.true((await read(subject, digest, 1_000_001, 3_000_000)).equals(data.subarray(1_000_001, 4_000_001)));
    t.is((await read(subject, await store(subject, ''))).length, 0);
  });

  suite('a reader may leave at any piece', async (t, subject) => {
    const digest = await store(subject, Buffer.alloc(4 << 20, 1));
    for (let i = 0; i < 50; i += 1) {
      for await (const piece of subject.client.read({ digest, offset: 0n, size: 0n }, within(subject))) {
        t.true(piece.data.length > 0);
        break;
      }
    }
    const controller = new AbortController();
    const reading = async () => {
      for await (const _ of subject.client.read(
        { digest, offset: 0n, size: 0n },
        within(subject, { signal: controller.signal }),
      ))
        controller.abort();
    };
    await refused(t, reading, 'Canceled');
  });

  for (const text of [
    '',
    'foo',
    'sha256:abc',
    `sha256:${'A'.repeat(64)}`,
    `md5:${'0'.repeat(32)}`,
    '../../x',
    `sha256:${'0'.repeat(62)}/x`,
    'x'.repeat(100_000),
  ]) {
    suite(`a digest that is none: ${JSON.stringify(text.slice(0, 30))}`, async (t, subject) => {
      await refused(t, () => info(subject, text), 'InvalidArgument');
      await refused(t, () => read(subject, text), 'InvalidArgument');
      await refused(t, () => subject.client.delete({ digest: text }, within(subject)), 'InvalidArgument');
      await refused(t, () => update(subject, text, {}), 'InvalidArgument');
    });
  }

  suite('content that is not there, or in another namespace only', async (t, subject) => {
    const other = await store(subject, 'elsewhere', { namespace: subject.otherNamespace });
    for (const digest of [zeros, `sha512:${'0'.repeat(128)}`, other]) {
      const message = `content digest ${digest}: not found`;
      await refused(t, () => info(subject, digest), 'NotFound', message);
      await refused(t, () => read(subject, digest), 'NotFound', message);
      await refused(t, () => subject.client.delete({ digest }, within(subject)), 'NotFound', message);
      await refused(t, () => update(subject, digest, {}), 'NotFound', message);
    }
    t.is((await info(subject, other, { namespace: subject.otherNamespace })).size, 9n);
  });

  suite('the namespace must be there and well formed', async (t, subject) => {
    async function* requests() {
      yield WriteContentRequest.fromPartial({ ref: 'r' });
    }
    const drain = async (stream: AsyncIterable<unknown>) => {
      for await (const _ of stream) t.fail();
    };
    for (const call of [
      (options: CallOptions) => subject.client.info({ digest: zeros }, options),
      (options: CallOptions) =>
        subject.client.update(
          { info: { digest: zeros, size: 0n, createdAt: undefined, updatedAt: undefined, labels: {} }, updateMask: [] },
          options,
        ),
      (options: CallOptions) => drain(subject.client.list({ filters: [] }, options)),
      (options: CallOptions) => subject.client.delete({ digest: zeros }, options),
      (options: CallOptions) => drain(subject.client.read({ digest: zeros, offset: 0n, size: 0n }, options)),
      (options: CallOptions) => subject.client.status({ ref: 'r' }, options),
      (options: CallOptions) => subject.client.listStatuses({ filters: [] }, options),
      (options: CallOptions) => subject.client.abort({ ref: 'r' }, options),
      (options: CallOptions) => drain(subject.client.write(requests(), options)),
    ]) {
      await refused(t, () => call({}), 'FailedPrecondition', 'namespace is required: failed precondition');
      await refused(t, () => call({ namespace: '../x' }), 'InvalidArgument');
    }
  });

  const masked: readonly [string, string[], { [key: string]: string }, object][] = [
    ['none replaces all', [], { z: '1', empty: '' }, { z: '1' }],
    ['labels replaces all', ['labels'], { y: '1', empty: '' }, { y: '1' }],
    ['labels.KEY sets one', ['labels.c.d'], { 'c.d': '2', other: '3' }, { a: 'b', 'c.d': '2' }],
    ['labels.KEY with nothing deletes one', ['labels.a'], {}, {}],
    ['a name of Object.prototype is a key like any', ['labels.toString'], {}, { a: 'b' }],
  ];
  for (const [title, paths, labels, expected] of masked) {
    suite(`mask: ${title}`, async (t, subject) => {
      const digest = await store(subject, 'x', {}, { a: 'b' });
      const before = await info(subject, digest);
      const updated = await update(subject, digest, labels, ...paths);
      t.deepEqual(updated.labels, expected as never);
      t.like(updated, { digest, size: 1n, createdAt: before.createdAt });
      t.notDeepEqual(updated.updatedAt, before.updatedAt);
      t.deepEqual(await info(subject, digest), updated);
    });
  }

  suite('updates that are refused change nothing', async (t, subject) => {
    const digest = await store(subject, 'x', {}, { a: 'b' });
    const before = await info(subject, digest);
    for (const path of ['size', '*', 'digest', 'labels.', ''])
      await refused(t, () => update(subject, digest, {}, path), 'InvalidArgument');
    const long = 'info.Labels: label key and value greater than maximum size (4096 bytes), key: x: invalid argument';
    await refused(t, () => update(subject, digest, { x: 'y'.repeat(5000) }, 'labels.x'), 'InvalidArgument', long);
    await refused(t, () => update(subject, digest, { x: 'y'.repeat(5000) }), 'InvalidArgument', long);
    await refused(t, () => update(subject, digest, undefined), 'InvalidArgument');
    t.deepEqual(await info(subject, digest), before);
  });

  suite('lists a hundred at a time, by filters', async (t, subject) => {
    const digests = await Promise.all(
      Array.from({ length: 250 }, (_, i) => store(subject, `blob ${i}`, {}, { n: String(i % 10) })),
    );
    const messages = await list(subject);
    t.deepEqual(
      messages.map(({ length }) => length),
      [100, 100, 50],
    );
    t.deepEqual(
      messages.flat().map(({ digest }) => digest),
      digests.toSorted(),
    );
    t.is((await list(subject, ['labels.n==3'])).flat().length, 25);
    t.is((await list(subject, [`digest==${digests[7]}`])).flat()[0]?.labels.n, '7');
    t.is((await list(subject, ['size==6', 'size==7'])).flat().length, 100);
    t.is((await list(subject, ['labels.n', 'labels.m'])).flat().length, 250);
    t.deepEqual(await list(subject, ['bogus==x']), []);
    t.deepEqual(await list(subject, [], { namespace: 'unheard-of' }), []);
    await refused(t, () => list(subject, ['foo..']), 'InvalidArgument');
  });

  suite('deleting is by namespace, and announced', async (t, subject) => {
    const digest = await store(subject, 'shared');
    await store(subject, 'shared', { namespace: subject.otherNamespace });
    await subject.client.delete({ digest }, within(subject));
    await refused(t, () => info(subject, digest), 'NotFound');
    const [event] = await subject.events(subject.namespace, 1);
    t.like(event, { topic: '/content/delete', typeUrl: 'containerd.events.ContentDelete' });
    t.deepEqual(ContentDelete.decode(event!.value), { digest });
    t.is((await read(subject, digest, 0, 0, { namespace: subject.otherNamespace })).toString(), 'shared');
    t.is(await store(subject, 'shared'), digest, 'it may come again');
    t.is((await read(subject, digest)).toString(), 'shared');
  });

  suite('what nothing refers to is collected, what a label or a lease holds is not', async (t, subject) => {
    await subject.createLease(subject.namespace, 'l');
    const child = await store(subject, 'child');
    const parent = await store(
      subject,
      'parent',
      {},
      { 'containerd.io/gc.root': 'now', 'containerd.io/gc.ref.content.0': child },
    );
    const leased = await store(subject, 'leased', { lease: 'l' });
    const lonely = await store(subject, 'lonely');
    t.deepEqual(await subject.leaseResources(subject.namespace, 'l'), [{ type: 'content', id: leased }]);
    await subject.collect();
    t.deepEqual(
      (await list(subject)).flat().map(({ digest }) => digest),
      [child, parent, leased].sort(),
    );
    await refused(t, () => info(subject, lonely), 'NotFound');
    await update(subject, parent, {}, 'labels');
    await subject.collect();
    t.deepEqual(
      (await list(subject)).flat().map(({ digest }) => digest),
      [leased],
    );
  });

  contentWriteSuite(suite);
  contentCommitSuite(suite);
}
