/** Content.Write, Status, ListStatuses and Abort: the part of the content suite about what is on its way. */
import type { ExecutionContext } from 'ava';
import type { CallOptions } from 'troupe/plugin';
import {
  WriteAction,
  WriteContentRequest,
  type WriteContentResponse,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { type ContentSubject, read, sha256, store, zeros } from './content.ts';
import { refused } from './refused.ts';
import { within } from './subject.ts';

type Request = Parameters<typeof WriteContentRequest.fromPartial>[0];
const { STAT, WRITE, COMMIT } = WriteAction;

/** A stream of Write whose requests are sent one by one, each with its answer. */
class Stream {
  readonly #queue: WriteContentRequest[] = [];
  #ended = false;
  readonly #responses: AsyncIterator<WriteContentResponse>;
  readonly #controller = new AbortController();
  #wake = Promise.withResolvers<void>();

  constructor(subject: ContentSubject, options: CallOptions = {}) {
    const stream = subject.client.write(
      this.#requests(),
      within(subject, { signal: this.#controller.signal, ...options }),
    );
    this.#responses = stream[Symbol.asyncIterator]();
  }

  async send(request: Request): Promise<WriteContentResponse> {
    this.#queue.push(WriteContentRequest.fromPartial(request));
    this.#wake.resolve();
    const next = await this.#responses.next();
    if (next.done) throw new Error('the stream has ended');
    return next.value;
  }

  /** Says that nothing more comes, and waits for the end. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#wake.resolve();
    while (!(await this.#responses.next()).done);
  }

  /** As a client that vanishes. */
  async vanish(): Promise<void> {
    const left = this.#responses.next().catch(() => {});
    this.#controller.abort();
    await left;
  }

  async *#requests(): AsyncGenerator<WriteContentRequest> {
    for (;;) {
      const request = this.#queue.shift();
      if (request !== undefined) yield request;
      else if (this.#ended) return;
      else {
        this.#wake = Promise.withResolvers();
        await this.#wake.promise;
      }
    }
  }
}

async function once(
  subject: ContentSubject,
  request: Request,
  options: CallOptions = {},
): Promise<WriteContentResponse> {
  const stream = new Stream(subject, options);
  const response = await stream.send(request);
  await stream.end();
  return response;
}

export function contentWriteSuite(
  suite: (title: string, run: (t: ExecutionContext, subject: ContentSubject) => Promise<void>) => void,
): void {
  const status = async (subject: ContentSubject, ref: string, options: CallOptions = {}) =>
    (await subject.client.status({ ref }, within(subject, options))).status!;
  const refs = async (subject: ContentSubject, ...filters: string[]) =>
    (await subject.client.listStatuses({ filters }, within(subject))).statuses.map(({ ref }) => ref);
  const absent = (t: ExecutionContext, subject: ContentSubject, ref: string) =>
    refused(
      t,
      () => status(subject, ref),
      'NotFound',
      `could not get status for ref "${ref}": reference ${ref}: not found`,
    );

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

  suite('write: of many writers of one content at the same time all but one are refused', async (t, subject) => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 16 }, (_, i) => once(subject, { action: COMMIT, ref: `r${i}`, data: Buffer.from('same') })),
    );
    t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const outcome of outcomes) if (outcome.status === 'rejected') t.is(outcome.reason.code, 'AlreadyExists');
    t.deepEqual(await refs(subject), []);
    t.is((await read(subject, sha256('same'))).toString(), 'same');
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

  suite('write: an ingest is kept for a day, or by its lease', async (t, subject) => {
    await subject.createLease(subject.namespace, 'l');
    await once(subject, { action: WRITE, ref: 'r', data: Buffer.from('x') });
    await once(subject, { action: WRITE, ref: 's', data: Buffer.from('x') }, { lease: 'l' });
    await subject.collect();
    t.deepEqual(await refs(subject), ['r', 's']);
  });
}
