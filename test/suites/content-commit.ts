/** Content.Write as it becomes content: the part of the content suite about commits, and about content that is there already. */
import { WriteAction } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { read, sha256, store, zeros } from './content.ts';
import { refused } from './refused.ts';
import { within } from './subject.ts';
import { absent, once, refs, type Request, status, Stream, type Suite } from './content-stream.ts';

const { STAT, WRITE, COMMIT } = WriteAction;

export function contentCommitSuite(suite: Suite): void {
  suite('write: a commit checks size and digest, and a failed one can be repaired', async (t, subject) => {
    const data = Buffer.from('hello world');
    await once(subject, { action: WRITE, ref: 'r', data });
    const commit = (request: Request) => once(subject, { action: COMMIT, ref: 'r', offset: 11n, ...request });
    await refused(
      t,
      () => commit({ total: 5n }),
      'FailedPrecondition',
      '"r" failed size validation: 11 != 5: failed precondition',
    );
    t.is((await status(subject, 'r')).offset, 11n);
    await once(subject, { action: WRITE, ref: 'r', total: 5n, data });
    await refused(t, () => once(subject, { action: COMMIT, ref: 'r', offset: 11n, total: 5n }), 'FailedPrecondition');
    await once(subject, { action: WRITE, ref: 'r2', data });
    await refused(
      t,
      () => once(subject, { action: COMMIT, ref: 'r2', offset: 11n, expected: zeros }),
      'FailedPrecondition',
      `unexpected commit digest ${sha256(data)}, expected ${zeros}: failed precondition`,
    );
    await refused(
      t,
      () => once(subject, { action: COMMIT, ref: 'r2', offset: 11n, expected: 'foo' }),
      'FailedPrecondition',
    );
    await refused(
      t,
      () => once(subject, { action: COMMIT, ref: 'r2', offset: 11n, labels: { l: 'x'.repeat(5000) } }),
      'InvalidArgument',
    );
    t.is((await status(subject, 'r2')).offset, 11n);
    t.is(
      (await once(subject, { action: COMMIT, ref: 'r2', offset: 11n, total: 11n, expected: sha256(data) })).digest,
      sha256(data),
    );
  });

  suite('write: a stream ends with its commit, and what is sent after it changes nothing', async (t, subject) => {
    for (const [ref, request] of Object.entries<Request>({
      more: { action: WRITE, offset: 4n, data: Buffer.from('and') },
      anew: { action: WRITE, data: Buffer.from('other') },
      again: { action: COMMIT, offset: 5n },
    })) {
      const stream = new Stream(subject);
      const { digest } = await stream.send({ action: COMMIT, ref, data: Buffer.from(ref) });
      await t.throwsAsync(stream.send(request), { message: 'the stream has ended' });
      t.is((await read(subject, digest)).toString(), ref);
      await absent(t, subject, ref);
    }
    t.deepEqual(await refs(subject), []);
  });

  suite('write: nothing at all is content too', async (t, subject) => {
    t.like(await once(subject, { action: COMMIT, ref: 'r' }), { offset: 0n, digest: sha256('') });
    await refused(t, () => once(subject, { action: COMMIT, ref: 'r' }), 'AlreadyExists');
  });

  suite('write: content that is there is refused, at any step, and the ingest goes', async (t, subject) => {
    const digest = await store(subject, 'here');
    await refused(
      t,
      () => once(subject, { action: STAT, ref: 'r', expected: digest }),
      'AlreadyExists',
      `content ${digest}: already exists`,
    );
    await absent(t, subject, 'r');
    const stream = new Stream(subject);
    await stream.send({ action: STAT, ref: 'r' });
    await refused(
      t,
      () => stream.send({ action: WRITE, data: Buffer.from('he'), expected: digest }),
      'AlreadyExists',
      `blob with expected digest ${digest} exists: already exists`,
    );
    await absent(t, subject, 'r');
    await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('here') });
    await refused(
      t,
      () => once(subject, { action: COMMIT, ref: 'r', offset: 4n }),
      'AlreadyExists',
      `content ${digest}: already exists`,
    );
    await absent(t, subject, 'r');
    t.deepEqual(await refs(subject), []);
  });

  suite('write: of many writers of one content at the same time all but one are refused', async (t, subject) => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 16 }, (_, i) => once(subject, { action: COMMIT, ref: `r${i}`, data: Buffer.from('same') })),
    );
    t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const outcome of outcomes) if (outcome.status === 'rejected') t.is(outcome.reason.code, 'AlreadyExists');
    t.deepEqual(await refs(subject), []);
    t.is((await read(subject, sha256('same'))).toString(), 'same');
  });

  suite('write: other algorithms, announced at the start or at the end', async (t, subject) => {
    const { createHash } = await import('node:crypto');
    const digest = (text: string) => `sha512:${createHash('sha512').update(text).digest('hex')}`;
    const stream = new Stream(subject);
    t.is((await stream.send({ action: STAT, ref: 'r', expected: digest('one') })).digest, digest(''));
    t.is((await stream.send({ action: COMMIT, data: Buffer.from('one') })).digest, digest('one'));
    t.is(
      (await once(subject, { action: COMMIT, ref: 'r', data: Buffer.from('two'), expected: digest('two') })).digest,
      digest('two'),
    );
    t.is((await read(subject, digest('two'))).toString(), 'two');
  });

  suite('write: content of another namespace is complete from the start', async (t, subject) => {
    const digest = await store(subject, 'shared', { namespace: subject.otherNamespace });
    t.like(await once(subject, { action: STAT, ref: 'r', total: 6n, expected: digest }), {
      offset: 6n,
      total: 6n,
      digest,
    });
    await absent(t, subject, 'r');
    const stream = new Stream(subject);
    await stream.send({ action: STAT, ref: 'r', total: 6n, expected: digest });
    t.like(await stream.send({ action: COMMIT, offset: 6n, total: 6n, labels: { a: 'b' } }), { offset: 6n, digest });
    t.is((await read(subject, digest)).toString(), 'shared');
    t.deepEqual((await subject.client.info({ digest }, within(subject))).info?.labels, { a: 'b' });
  });

  suite('write: content of another namespace, appended to or started over', async (t, subject) => {
    const digest = await store(subject, 'shared', { namespace: subject.otherNamespace });
    const stream = new Stream(subject);
    await stream.send({ action: STAT, ref: 'r', total: 6n, expected: digest });
    t.like(await stream.send({ action: WRITE, offset: 6n, data: Buffer.from('shared') }), {
      offset: 12n,
      digest: sha256('sharedshared'),
    });
    await refused(
      t,
      () => stream.send({ action: COMMIT, offset: 12n, total: 6n, expected: digest }),
      'FailedPrecondition',
      '"r" failed size validation: 12 != 6: failed precondition',
    );
    t.is((await status(subject, 'r')).offset, 12n);
    await subject.client.abort({ ref: 'r' }, within(subject));
    const anew = new Stream(subject);
    await anew.send({ action: STAT, ref: 'r', expected: digest });
    t.like(await anew.send({ action: WRITE, data: Buffer.from('shar') }), { offset: 4n });
    t.like(await anew.send({ action: COMMIT, offset: 4n, data: Buffer.from('ed') }), { offset: 6n, digest });
    t.like(
      await once(
        subject,
        { action: STAT, ref: 's', total: 5n, expected: digest },
        { namespace: `${subject.otherNamespace}-2` },
      ),
      { offset: 0n },
      'the size disagrees',
    );
    t.is(
      (await read(subject, digest, 0, 0, { namespace: subject.otherNamespace })).toString(),
      'shared',
      'theirs is as it was',
    );
  });

  suite('write: a lease gets the ingest, then the content, also when it was there', async (t, subject) => {
    const resources = () => subject.leaseResources(subject.namespace, 'l');
    await refused(t, () => once(subject, { action: STAT, ref: 'r' }, { lease: 'l' }), 'NotFound');
    await absent(t, subject, 'r');
    await subject.createLease(subject.namespace, 'l');
    await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('x') }, { lease: 'l' });
    t.deepEqual(await resources(), [{ type: 'ingests', id: 'r' }]);
    const { digest } = await once(subject, { action: COMMIT, ref: 'r', offset: 1n }, { lease: 'l' });
    t.deepEqual(await resources(), [{ type: 'content', id: digest }]);
    const other = await store(subject, 'other');
    await refused(t, () => once(subject, { action: STAT, ref: 'r', expected: other }, { lease: 'l' }), 'AlreadyExists');
    t.deepEqual(
      await resources(),
      [digest, other].sort().map((id) => ({ type: 'content', id })),
    );
  });
}
