/** Content.Write, Status, ListStatuses and Abort: the part of the content suite about what is on its way. */
import { WriteAction } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { read, sha256 } from './content.ts';
import { refused } from './refused.ts';
import { within } from './subject.ts';
import { absent, once, refs, status, Stream, type Suite } from './content-stream.ts';

const { STAT, WRITE, COMMIT } = WriteAction;

export function contentWriteSuite(suite: Suite): void {
  suite('write: every answer tells offset, total, times and the digest so far', async (t, subject) => {
    const before = BigInt(Date.now() - 1) * 1_000_000n;
    const stream = new Stream(subject);
    const first = await stream.send({ action: STAT, ref: 'r', total: 11n, expected: sha256('hello world') });
    t.like(first, { action: STAT, offset: 0n, total: 11n, digest: sha256('') });
    t.deepEqual(first.startedAt, first.updatedAt);
    const started = first.startedAt!.seconds * 1_000_000_000n + BigInt(first.startedAt!.nanos);
    t.true(before <= started && started <= BigInt(Date.now() + 1) * 1_000_000n);
    const second = await stream.send({ action: WRITE, data: Buffer.from('hello') });
    t.like(second, { action: WRITE, offset: 5n, digest: sha256('hello'), startedAt: first.startedAt });
    t.notDeepEqual(second.updatedAt, first.updatedAt);
    t.like(await status(subject, 'r'), {
      ref: 'r',
      offset: 5n,
      total: 11n,
      updatedAt: second.updatedAt,
      expected: sha256('hello world'),
    });
    t.like(await stream.send({ action: WRITE, offset: 5n, data: Buffer.from(' world') }), { offset: 11n });
    const last = await stream.send({ action: COMMIT, offset: 11n, labels: { a: 'b' } });
    t.like(last, { action: COMMIT, offset: 11n, digest: sha256('hello world') });
    await t.throwsAsync(
      stream.send({ action: WRITE, offset: 11n, data: Buffer.from('more') }),
      undefined,
      'a commit ends the stream',
    );
    await absent(t, subject, 'r');
    const { info } = await subject.client.info({ digest: last.digest }, within(subject));
    t.deepEqual(info?.labels, { a: 'b' });
  });

  suite('write: much at once is answered before it is hashed, and is there whatever the client does then', async (t, subject) => {
    const data = Buffer.alloc(1 << 20, 'troupe');
    const stream = new Stream(subject);
    await stream.send({ action: STAT, ref: 'bulk', total: BigInt(2 * data.length) });
    t.like(await stream.send({ action: WRITE, data }), { action: WRITE, offset: BigInt(data.length), digest: '' });
    await refused(
      t,
      () => stream.send({ action: WRITE, offset: 1n, data }),
      'OutOfRange',
      `write @1 must occur at current offset ${data.length}: out of range`,
    );
    const again = new Stream(subject);
    const found = await again.send({ action: STAT, ref: 'bulk' });
    t.like(found, { offset: BigInt(data.length), digest: sha256(data) }, 'all that was answered');
    await again.send({ action: WRITE, offset: found.offset, data });
    await again.vanish();
    const last = await once(subject, { action: COMMIT, ref: 'bulk', offset: BigInt(2 * data.length) });
    t.is(last.digest, sha256(Buffer.concat([data, data])), 'and what was answered last before the client vanished');
  });

  suite('write: the first message must name the ref', async (t, subject) => {
    await refused(
      t,
      () => once(subject, { action: STAT }),
      'InvalidArgument',
      'first message must have a reference: invalid argument',
    );
    t.deepEqual(await refs(subject), []);
  });

  suite('write: an offset must be the current one, and 0 starts over', async (t, subject) => {
    await refused(
      t,
      () => once(subject, { action: WRITE, ref: 'r', offset: 5n, data: Buffer.from('x') }),
      'OutOfRange',
      'write @5 must occur at current offset 0: out of range',
    );
    t.is((await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('hello') })).offset, 5n);
    await refused(
      t,
      () => once(subject, { action: WRITE, ref: 'r', offset: 4n, data: Buffer.from('x') }),
      'OutOfRange',
    );
    await refused(t, () => once(subject, { action: COMMIT, ref: 'r', offset: 6n }), 'OutOfRange');
    t.is((await status(subject, 'r')).offset, 5n);
    t.like(await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('anew') }), {
      offset: 4n,
      digest: sha256('anew'),
    });
    t.like(await once(subject, { action: WRITE, ref: 'r' }), { offset: 0n, digest: sha256('') });
    t.is((await status(subject, 'r')).offset, 0n);
  });

  suite('write: what has arrived stays, and is gone on from', async (t, subject) => {
    const stream = new Stream(subject);
    await stream.send({ action: WRITE, ref: 'r', total: 11n, data: Buffer.from('hello') });
    await stream.end();
    const again = new Stream(subject);
    t.like(await again.send({ action: STAT, ref: 'r' }), { offset: 5n, digest: sha256('hello') });
    t.like(await status(subject, 'r'), { offset: 5n, total: 11n });
    const { digest } = await again.send({
      action: COMMIT,
      offset: 5n,
      data: Buffer.from(' world'),
      total: 11n,
      expected: sha256('hello world'),
    });
    t.is((await read(subject, digest)).toString(), 'hello world');
    await absent(t, subject, 'r');
  });

  suite('write: a client that vanishes leaves a free ref that can be gone on from', async (t, subject) => {
    for (let i = 0; i < 5; i += 1) {
      const stream = new Stream(subject);
      await stream.send({ action: STAT, ref: 'r' });
      await stream.send({ action: WRITE, offset: BigInt(i), data: Buffer.from('x') });
      await stream.vanish();
    }
    t.like(await once(subject, { action: STAT, ref: 'r' }), { offset: 5n, digest: sha256('xxxxx') });
  });

  suite('write: another total is another content, and starts over', async (t, subject) => {
    await once(subject, { action: WRITE, ref: 'r', total: 11n, data: Buffer.from('hello') });
    t.like(await once(subject, { action: STAT, ref: 'r', total: 5n }), { offset: 0n, total: 5n });
    t.like(await status(subject, 'r'), { offset: 0n, total: 5n });
  });

  suite('write: a ref has one writer', async (t, subject) => {
    const stream = new Stream(subject);
    await stream.send({ action: WRITE, ref: 'r', data: Buffer.from('x') });
    const thrown = await t.throwsAsync(once(subject, { action: STAT, ref: 'r' }));
    t.regex(thrown!.message, /^ref r locked for [0-9.]+s \(since .*Z\): unavailable$/);
    await refused(t, () => once(subject, { action: STAT, ref: 'r' }), 'Unavailable');
    t.is(
      (await once(subject, { action: STAT, ref: 'r' }, { namespace: subject.otherNamespace })).offset,
      0n,
      'per namespace',
    );
    t.is((await stream.send({ action: WRITE, offset: 1n, data: Buffer.from('y') })).offset, 2n);
    const waiting = once(subject, { action: STAT, ref: 'r' });
    await stream.end();
    t.is((await waiting).offset, 2n, 'who comes just before the end gets it');
  });

  suite('write: aborting frees the ref, also under a writer', async (t, subject) => {
    await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('x') });
    await subject.client.abort({ ref: 'r' }, within(subject));
    await absent(t, subject, 'r');
    await refused(t, () => subject.client.abort({ ref: 'r' }, within(subject)), 'NotFound', 'reference r: not found');
    const stream = new Stream(subject);
    await stream.send({ action: WRITE, ref: 'r', data: Buffer.from('x') });
    await subject.client.abort({ ref: 'r' }, within(subject));
    await absent(t, subject, 'r');
    await refused(t, () => stream.send({ action: WRITE, offset: 1n, data: Buffer.from('y') }), 'NotFound');
    t.is((await once(subject, { action: STAT, ref: 'r' })).offset, 0n);
  });

  suite('write: refs are free text', async (t, subject) => {
    const odd = ['a b', '../../x', 'a\0b', '"', 'ü☃', '__proto__', 'x'.repeat(40_000), '/', ' '];
    for (const ref of odd) t.is((await once(subject, { action: WRITE, ref, data: Buffer.from('x') })).offset, 1n);
    t.deepEqual((await refs(subject)).sort(), odd.toSorted());
    for (const ref of odd) t.is((await status(subject, ref)).offset, 1n);
    t.deepEqual(await refs(subject, 'ref~=/^x+$/', 'ref==__proto__').then((found) => found.length), 2);
    t.deepEqual(await refs(subject, 'other'), []);
    await refused(t, () => refs(subject, 'ref=='), 'InvalidArgument');
    for (const ref of odd) await subject.client.abort({ ref }, within(subject));
    t.deepEqual(await refs(subject), []);
  });

  suite('write: an ingest is kept for a day, or by its lease', async (t, subject) => {
    await subject.createLease(subject.namespace, 'l');
    await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('x') });
    await once(subject, { action: WRITE, ref: 's', data: Buffer.from('x') }, { lease: 'l' });
    await subject.collect();
    t.deepEqual(await refs(subject), ['r', 's']);
  });
}
