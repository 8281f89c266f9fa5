/** What stays on disk after a crash, after deletions, and when a sweep meets an upload of the same digest. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { locks } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { mkfifo } from 'troupe/sys';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import type { InProcess } from '../../test/helpers/in-process.ts';
import { read, sha256, store } from '../../test/suites/content.ts';
import { clientOf, type InProcessSubject, useSubject } from '../../test/suites/in-process-subject.ts';
import { refused } from '../../test/suites/refused.ts';
import { within } from '../../test/suites/subject.ts';
import content from './index.ts';

const id = 'io.containerd.content.v1.content';
type Subject = InProcessSubject<typeof ContentDefinition>;

const use = (t: ExecutionContext, prepare?: (daemon: InProcess) => void, policy = 'shared') =>
  useSubject(t, ContentDefinition, content, {
    id,
    noun: 'content',
    config: { content_sharing_policy: policy },
    ...(prepare && { prepare }),
  });

const path = (daemon: InProcess, ...parts: string[]) => join(daemon.root, id, ...parts);
const blob = (daemon: InProcess, digest: string) => path(daemon, 'blobs', 'sha256', digest.slice(7));
const ingests = (daemon: InProcess) => readdirSync(path(daemon, 'ingest'));

async function partial(subject: Subject, ref: string, data: string): Promise<void> {
  async function* requests() {
    yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref, data: Buffer.from(data) });
  }
  for await (const _ of subject.client.write(requests(), within(subject)));
}

/** As after kill -9 and a new start: the thread is gone, and another one begins with what is on disk. */
async function restart(subject: Subject, meanwhile: (daemon: InProcess) => void = () => {}): Promise<Subject> {
  subject.plugin.crash();
  await subject.plugin.instance.stop?.();
  meanwhile(subject.daemon);
  const plugin = await subject.daemon.add(content, {
    id,
    prefix: 'content',
    config: { content_sharing_policy: 'shared' },
  });
  return { ...subject, plugin, client: clientOf(ContentDefinition, plugin) };
}

async function eventually(t: ExecutionContext, what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !holds(); i += 1) await new Promise((resolve) => setTimeout(resolve, 10));
  t.true(holds(), what);
}

test('the last claim to a file takes it along, and the row that said so', async (t) => {
  const subject = await use(t);
  const { daemon } = subject;
  const digest = await store(subject, 'x');
  await store(subject, 'x', { namespace: subject.otherNamespace });
  t.is(statSync(blob(daemon, digest)).mode & 0o777, 0o444);
  await subject.client.delete({ digest }, within(subject));
  t.true(existsSync(blob(daemon, digest)));
  await subject.client.delete({ digest }, { namespace: subject.otherNamespace });
  await eventually(
    t,
    'file and row are gone',
    () => !existsSync(blob(daemon, digest)) && daemon.records.rows('records_trash').length === 0,
  );
  t.deepEqual(ingests(daemon), []);
});

test('collection takes files and ingest directories along', async (t) => {
  const subject = await use(t);
  const { daemon } = subject;
  const digest = await store(subject, 'x');
  await partial(subject, 'r', 'y');
  t.is(ingests(daemon).length, 1);
  await daemon.records.as('content').commit({
    statements: [{ sql: 'UPDATE content_ingest SET expires = 1' }],
  });
  await subject.collect();
  await eventually(
    t,
    'nothing is left',
    () =>
      !existsSync(blob(daemon, digest)) &&
      ingests(daemon).length === 0 &&
      daemon.records.rows('records_trash').length === 0,
  );
});

test('a sweep that meets an upload of the same digest leaves the file', async (t) => {
  const subject = await use(t);
  const { daemon } = subject;
  const digest = await store(subject, 'x');
  // Whoever removes the file has to wait until the upload has recorded it again.
  const held = Promise.withResolvers<void>();
  const holding = locks.request(`digest:${digest}`, () => held.promise);
  await subject.client.delete({ digest }, within(subject));
  await daemon.records.as('content').commit({
    statements: [
      {
        sql: 'INSERT INTO content_blob (ns, digest, size, created, updated) VALUES (?, ?, 1, 1, 1)',
        params: [subject.namespace, digest],
      },
    ],
  });
  held.resolve();
  await holding;
  await eventually(t, 'the row is done with', () => daemon.records.rows('records_trash').length === 0);
  t.is((await read(subject, digest)).toString(), 'x');
});

test('a sweep that meets a new ingest of the same ref leaves its directory', async (t) => {
  const subject = await use(t);
  const { daemon } = subject;
  await partial(subject, 'r', 'old');
  const held = Promise.withResolvers<void>();
  const holding = locks.request(`ref:${subject.namespace}/r`, () => held.promise);
  const rows = daemon.records.rows<{ directory: string }>('SELECT directory FROM content_ingest');
  const content = daemon.records.as('content');
  await content.commit({ statements: [{ sql: "DELETE FROM content_gc_node WHERE kind = 'ingest'" }] });
  t.is(daemon.records.rows('records_trash').length, 1);
  // Whoever has the ref now has made it again.
  await content.commit({
    statements: [
      {
        sql: "INSERT INTO content_ingest (ns, ref, directory) VALUES (?, 'r', ?)",
        params: [subject.namespace, rows[0]!.directory],
      },
    ],
  });
  held.resolve();
  await holding;
  await eventually(t, 'the row is done with', () => daemon.records.rows('records_trash').length === 0);
  const { status } = await subject.client.status({ ref: 'r' }, within(subject));
  t.is(status?.offset, 3n);
});

test('an upload waits for a removal of the same digest', async (t) => {
  const subject = await use(t);
  const order: string[] = [];
  const held = Promise.withResolvers<void>();
  const holding = locks.request(`digest:${sha256('waits')}`, () => held.promise);
  const storing = store(subject, 'waits').then(() => order.push('stored'));
  await eventually(t, 'its bytes are there', () => ingests(subject.daemon).length === 1);
  // Long enough for an upload that does not wait.
  await new Promise((resolve) => setTimeout(resolve, 200));
  order.push('removed');
  held.resolve();
  await Promise.all([holding, storing]);
  t.deepEqual(order, ['removed', 'stored']);
});

test('deleting and uploading the same content over and over never loses it', async (t) => {
  const subject = await use(t);
  for (let i = 0; i < 50; i += 1) {
    const digest = await store(subject, 'x');
    t.is((await read(subject, digest)).toString(), 'x');
    await subject.client.delete({ digest }, within(subject));
  }
  await eventually(t, 'nothing is left', () => !existsSync(blob(subject.daemon, sha256('x'))));
});

test('a start clears what no record names, and keeps the rest', async (t) => {
  const before = await use(t);
  const digest = await store(before, 'keep');
  await partial(before, 'r', 'hello');
  await partial(before, 'lost', 'x');
  const orphan = sha256('orphan');
  const subject = await restart(before, (daemon) => {
    // Between link and record; between mkdir and record; data that was never synced; strays.
    writeFileSync(blob(daemon, orphan), 'orphan');
    mkdirSync(path(daemon, 'ingest', 'f'.repeat(64)));
    writeFileSync(path(daemon, 'ingest', 'f'.repeat(64), 'data'), 'x');
    // A second directory of a ref; one of a ref and nothing else; a hundred gigabytes that are none; no directory at all.
    for (const name of ['e', 'd', 'c']) mkdirSync(path(daemon, 'ingest', name.repeat(64)));
    for (const name of ['e', 'd'])
      writeFileSync(path(daemon, 'ingest', name.repeat(64), 'ref'), `${before.namespace}/r`);
    for (const name of ['e', 'c']) writeFileSync(path(daemon, 'ingest', name.repeat(64), 'data'), '');
    truncateSync(path(daemon, 'ingest', 'c'.repeat(64), 'data'), 100 * 2 ** 30);
    writeFileSync(path(daemon, 'ingest', 'stray'), '');
    const [lost] = ingests(daemon).filter((name) => {
      const file = path(daemon, 'ingest', name, 'ref');
      return existsSync(file) && readFileSync(file, 'utf8').endsWith('/lost');
    });
    rmSync(path(daemon, 'ingest', lost!, 'data'));
    writeFileSync(path(daemon, 'blobs', 'stray'), '');
    writeFileSync(path(daemon, 'blobs', 'sha256', 'stray'), '');
  });
  const { daemon } = subject;
  await eventually(
    t,
    'leftovers are gone',
    () =>
      !existsSync(blob(daemon, orphan)) &&
      !existsSync(path(daemon, 'blobs', 'stray')) &&
      !existsSync(path(daemon, 'blobs', 'sha256', 'stray')),
  );
  t.is(ingests(daemon).length, 2);
  const { statuses } = await subject.client.listStatuses({ filters: [] }, within(subject));
  t.deepEqual(
    statuses.map(({ ref, offset }) => [ref, offset]),
    [
      ['lost', 0n],
      ['r', 5n],
    ],
  );
  t.is((await read(subject, digest)).toString(), 'keep');
});

test('trash that a crash left is removed by the next start', async (t) => {
  const before = await use(t);
  const digest = await store(before, 'x');
  before.plugin.crash();
  await before.plugin.instance.suspend?.();
  await before.daemon.records.as('content').commit({ statements: [{ sql: 'DELETE FROM content_blob' }] });
  t.is(before.daemon.records.rows('records_trash').length, 1);
  t.true(existsSync(blob(before.daemon, digest)));
  const { daemon } = await restart(before);
  await eventually(
    t,
    'file and row are gone',
    () => !existsSync(blob(daemon, digest)) && daemon.records.rows('records_trash').length === 0,
  );
});

/** Blobs are read-only, which keeps those out who are not root. */
function writable(file: string): string {
  chmodSync(file, 0o644);
  return file;
}

for (const [what, damage] of Object.entries({
  missing: (file: string) => rmSync(file),
  truncated: (file: string) => truncateSync(writable(file), 2),
  empty: (file: string) => truncateSync(writable(file), 0),
  longer: (file: string) => writeFileSync(writable(file), 'hello, longer'),
  'a directory': (file: string) => {
    rmSync(file);
    mkdirSync(file);
  },
  'a link to as many bytes': (file: string) => {
    rmSync(file);
    writeFileSync(`${file}.elsewhere`, 'other');
    symlinkSync(`${file}.elsewhere`, file);
  },
  'a pipe': (file: string) => {
    rmSync(file);
    mkfifo(file, 0o600);
  },
})) {
  test(`a damaged blob is told and not served, and uploading it heals it: ${what}`, async (t) => {
    const before = await use(t);
    const digest = await store(before, 'hello', {}, { a: 'b' });
    const subject = await restart(before, (daemon) => damage(blob(daemon, digest)));
    await eventually(t, 'it is logged', () =>
      subject.plugin.log.some(
        ({ level, fields }) => level === 'error' && (fields as { digest: string }).digest === digest,
      ),
    );
    await refused(t, () => read(subject, digest), 'DataLoss');
    async function* requests() {
      yield WriteContentRequest.fromPartial({ ref: 'heal', expected: digest, total: 5n });
      yield WriteContentRequest.fromPartial({
        action: WriteAction.COMMIT,
        data: Buffer.from('hello'),
        expected: digest,
      });
    }
    for await (const _ of subject.client.write(requests(), within(subject)));
    t.is((await read(subject, digest)).toString(), 'hello');
    const { info } = await subject.client.info({ digest }, within(subject));
    t.deepEqual(info?.labels, { a: 'b' }, 'its labels are still there');
    t.is(statSync(blob(subject.daemon, digest)).mode & 0o777, 0o444);
  });
}

test('isolated namespaces share only with those that are labelled so', async (t) => {
  const subject = await use(t, undefined, 'isolated');
  const digest = await store(subject, 'x', { namespace: subject.otherNamespace });
  const offset = async () => {
    async function* requests() {
      yield WriteContentRequest.fromPartial({ ref: 'r', expected: digest });
    }
    for await (const response of subject.client.write(requests(), within(subject))) return response.offset;
  };
  t.is(await offset(), 0n);
  await subject.client.abort({ ref: 'r' }, within(subject));
  await subject.daemon.records.as('namespaces').commit({
    statements: [
      {
        sql: 'UPDATE records_namespace SET labels = ? WHERE name = ?',
        params: ['{"containerd.io/namespace.shareable":"true"}', subject.otherNamespace],
      },
    ],
  });
  t.is(await offset(), 1n);
});

test('a namespace that goes takes its ingests with it', async (t) => {
  const subject = await use(t);
  await partial(subject, 'r', 'x');
  await subject.daemon.records.as('namespaces').commit({
    statements: [{ sql: 'DELETE FROM records_namespace WHERE name = ?', params: [subject.namespace] }],
  });
  await eventually(t, 'the directory is gone', () => ingests(subject.daemon).length === 0);
  t.deepEqual((await subject.client.listStatuses({ filters: [] }, within(subject))).statuses, []);
});

test('a reload neither clears nor forgets what is on its way', async (t) => {
  const before = await use(t);
  await partial(before, 'r', 'hello');
  const plugin = await before.plugin.reload();
  const subject = { ...before, plugin, client: clientOf(ContentDefinition, plugin) };
  const { status } = await subject.client.status({ ref: 'r' }, within(subject));
  t.is(status?.offset, 5n);
  const digest = await store(subject, 'after');
  await subject.client.delete({ digest }, within(subject));
  await eventually(t, 'trash is looked after', () => !existsSync(blob(subject.daemon, digest)));
});
