import { randomBytes } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import test from 'ava';
import type { Commit, SqlValue } from 'troupe/plugin';
import { Failure } from 'troupe/plugin';
import { CommitRequest, CommitResponse } from 'troupe/proto/troupe/records/v1/records.ts';
import { encodeCommit } from '../../kernel/sdk/reader.ts';
import { openTestRecords } from '../../test/helpers/records.ts';
import { Engine } from './engine.ts';
import { commitOf, insert, useThings } from '../../test/helpers/things.ts';

const bytesOf = (response: CommitResponse) => CommitResponse.encode(response).finish();

test('a commit is all or nothing, and its neighbours in the batch do not notice', async (t) => {
  const { records, rows, engine } = useThings(t);
  const before = engine.stats.batches;
  const results = await Promise.allSettled([
    records.commit(commitOf(insert('a'))),
    records.commit(commitOf(insert('b'), insert('a'))),
    records.commit(commitOf(insert('c'))),
  ]);
  t.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? result.value.sequence : result.reason.message)),
    [1, 'thing "a": already exists', 2],
  );
  t.deepEqual(
    rows<{ id: string }>('things_thing').map(({ id }) => id),
    ['a', 'c'],
  );
  t.is(engine.stats.batches, before + 1);
});

test('numbers go on over a restart', async (t) => {
  const { records, engine, path } = useThings(t);
  const { sequence } = await records.commit(commitOf(insert('a')));
  t.is(engine.sequence, sequence);
  engine.close();
  const next = new Engine({ path });
  next.ready();
  t.is(next.sequence, sequence);
  t.false(next.unclean);
  next.close();
});

test('what a statement expects', async (t) => {
  const { records } = useThings(t);
  const missing = new Failure('NotFound', 'thing "x": not found');
  await records.commit(commitOf(insert('a')));
  const update = { sql: 'UPDATE things_thing SET number = 1 WHERE id = ?', rows: 1, otherwise: missing };
  await t.throwsAsync(records.commit(commitOf({ ...update, params: ['x'] })), { message: missing.message });
  t.is((await records.commit(commitOf({ ...update, params: ['a'] }))).results[0]!.changes, 1);
  const select = { sql: 'SELECT 1 FROM things_thing WHERE id = ?', otherwise: missing };
  await t.throwsAsync(records.commit(commitOf({ ...select, params: ['x'], rows: 1 }, insert('y'))), {
    message: missing.message,
  });
  await t.throwsAsync(records.commit(commitOf({ ...select, params: ['a'], rows: 0 })), { message: missing.message });
  t.is(records.get('SELECT 1 FROM things_thing WHERE id = ?', 'y'), undefined);
  await t.throwsAsync(records.commit(commitOf({ sql: update.sql, params: ['x'], rows: 1 })), { message: /: aborted$/ });
});

test('failures of statements that have no words of their own', async (t) => {
  const { records } = useThings(t);
  await records.commit(commitOf(insert('a'), insert('kept')));
  const codeOf = async (...statements: Commit['statements']) =>
    ((await t.throwsAsync(records.commit(commitOf(...statements)))) as Failure).code;
  t.is(await codeOf({ sql: 'INSERT INTO things_thing (id) VALUES (?)', params: ['a'] }), 'AlreadyExists');
  t.is(
    await codeOf({ sql: 'INSERT INTO things_thing (id, number) VALUES (?, 2000000)', params: ['b'] }),
    'FailedPrecondition',
  );
  t.is(await codeOf({ sql: 'DELETE FROM things_thing WHERE id = ?', params: ['kept'] }), 'FailedPrecondition');
  t.is(await codeOf({ sql: 'INSERT INTO things_thing (id) VALUES (?, ?)', params: ['b'] }), 'Internal');
  t.is(await codeOf({ sql: 'nonsense' }), 'Internal');
});

test('values come back as they went in', async (t) => {
  const { records } = useThings(t);
  const values: SqlValue[] = [2 ** 53 - 1, 2n ** 62n, -(2n ** 63n), -5, null];
  const { results } = await records.commit(
    commitOf(
      ...values.map((value) => ({
        sql: 'INSERT INTO things_big (value, real, blob) VALUES (?, ?, ?) RETURNING value, real, blob',
        params: [value, 0.5, new Uint8Array([0, 255])],
        rows: 1,
      })),
    ),
  );
  t.deepEqual(
    results.map(({ rows }) => rows[0]),
    values.map((value) => [value, 0.5, new Uint8Array([0, 255])]),
  );
  t.deepEqual(
    records.all<{ value: SqlValue }>('SELECT value FROM things_big ORDER BY id').map(({ value }) => value),
    values,
  );
  t.deepEqual(
    { ...records.get('SELECT value, blob FROM things_big WHERE value = ?', 2n ** 62n)! },
    {
      value: 2n ** 62n,
      blob: new Uint8Array([0, 255]),
    },
  );
});

test('asking again with the same id returns the first outcome', async (t) => {
  const { engine, rows, path } = useThings(t);
  const request = CommitRequest.decode(
    encodeCommit(commitOf({ ...insert('a'), sql: `${insert('a').sql} RETURNING id` }), 'things'),
  );
  const [first, sameBatch] = await Promise.all([engine.commit(request), engine.commit(request)]);
  const later = await engine.commit(request);
  t.deepEqual(sameBatch, first);
  t.deepEqual(bytesOf(later), bytesOf(first));
  t.is(rows('things_thing').length, 1);
  engine.close();
  const next = new Engine({ path });
  next.ready();
  t.deepEqual(bytesOf(await next.commit(request)), bytesOf(first));
  next.close();
});

test('a failed commit is tried anew when it is asked for again', async (t) => {
  const { engine, records } = useThings(t);
  await records.commit(commitOf(insert('a')));
  const request = CommitRequest.decode(encodeCommit(commitOf(insert('a')), 'things'));
  await t.throwsAsync(engine.commit(request));
  await records.commit(commitOf({ sql: 'DELETE FROM things_thing WHERE id = ?', params: ['a'] }));
  t.is((await engine.commit(request)).results.length, 1);
});

test('outcomes are kept for a while and not for ever', async (t) => {
  const { engine, rows } = useThings(t);
  const request = (): CommitRequest => ({
    ...CommitRequest.create(),
    id: randomBytes(16),
    writer: 'things',
  });
  const first = request();
  await engine.commit(first);
  for (let round = 0; round < 10; round++)
    await Promise.all(Array.from({ length: 5000 }, () => engine.commit(request())));
  const [{ count }] = rows<{ count: number }>('SELECT count(*) AS count FROM records_commit') as [{ count: number }];
  t.true(count >= 4096 && count <= 2 * 4096 + 5000, `${count} rows`);
  t.not((await engine.commit(first)).sequence, 1n);
});

test('a namespace is made by naming it, once', async (t) => {
  const { records, rows } = useThings(t);
  await records.commit({ ...commitOf(insert('a')), namespace: 'default' });
  await records.commit({ ...commitOf(insert('b')), namespace: 'default' });
  await t.throwsAsync(records.commit({ ...commitOf(insert('b')), namespace: 'other' }));
  t.deepEqual(
    rows<{ name: string }>('records_namespace').map(({ name }) => name),
    ['default'],
  );
});

test('a lease gains and loses with the commit, and must exist', async (t) => {
  const { records, as, rows } = useThings(t, 'leases');
  const lease = { namespace: 'default', id: 'l"1', add: [{ type: 'content', id: 'sha256:1' }] };
  const failure = await t.throwsAsync(records.commit({ ...commitOf(insert('a')), lease }), { instanceOf: Failure });
  t.is(failure.code, 'NotFound');
  t.is(failure.message, 'lease "l\\"1": not found');
  t.is(rows('things_thing').length, 0);
  await as('leases').commit(
    commitOf({ sql: "INSERT INTO leases_lease (ns, id, created_at) VALUES ('default', ?, 1)", params: [lease.id] }),
  );
  await records.commit({ ...commitOf(insert('a')), lease });
  await records.commit({ ...commitOf(insert('b')), lease });
  t.deepEqual(
    rows('SELECT ns, lease, type, id FROM records_lease_resource').map((row) => ({ ...row })),
    [{ ns: 'default', lease: lease.id, type: 'content', id: 'sha256:1' }],
  );
  await records.commit({ statements: [], lease: { namespace: 'default', id: lease.id, remove: lease.add } });
  t.is(rows('records_lease_resource').length, 0);
});

test('events and trash are there if and only if the commit is', async (t) => {
  const { records, rows } = useThings(t);
  const extras = {
    events: [{ namespace: 'default', topic: '/things/create', typeUrl: 'T', value: new Uint8Array([1]) }],
    trash: [{ owner: 'things', path: 'p' }],
  };
  await records.commit({ ...commitOf(insert('a')), ...extras });
  await t.throwsAsync(records.commit({ ...commitOf(insert('a')), ...extras }));
  t.like(rows('records_outbox'), [{ ns: 'default', topic: '/things/create', type_url: 'T' }]);
  t.is(rows('records_outbox').length, 1);
  t.deepEqual(
    rows<{ path: string }>('records_trash').map(({ path }) => path),
    ['p'],
  );
});

test("a trigger's event is a protobuf message with the texts it was given", async (t) => {
  const { records, rows } = useThings(t);
  const long = 'é'.repeat(10_000);
  for (const id of ['short', long, 'x'.repeat(127), 'x'.repeat(128)]) {
    await records.commit(commitOf(insert(id)));
    await records.commit(commitOf({ sql: 'DELETE FROM things_thing WHERE id = ?', params: [id] }));
    const { value } = rows<{ value: Uint8Array }>('SELECT value FROM records_outbox ORDER BY seq DESC LIMIT 1')[0]!;
    const size = Buffer.byteLength(id);
    const varint =
      size < 128
        ? [size]
        : size < 16_384
          ? [(size & 127) | 128, size >> 7]
          : [(size & 127) | 128, ((size >> 7) & 127) | 128, size >> 14];
    t.deepEqual(Buffer.from(value), Buffer.concat([Buffer.from([10, ...varint]), Buffer.from(id)]));
  }
});

test('20 000 commits at once share few transactions and are answered in order', async (t) => {
  const { records, engine, rows } = useThings(t);
  const before = engine.stats;
  const order: number[] = [];
  await Promise.all(
    Array.from({ length: 20_000 }, async (_, index) => {
      order.push((await records.commit(commitOf(insert(`t${index}`, index)))).sequence);
    }),
  );
  t.is(rows<{ count: number }>('SELECT count(*) AS count FROM things_thing')[0]!.count, 20_000);
  t.deepEqual(
    order,
    Array.from({ length: 20_000 }, (_, index) => index + 1),
  );
  t.is(engine.stats.commits - before.commits, 20_000);
  t.true(engine.stats.batches - before.batches < 20);
  t.true(engine.stats.fsyncs >= engine.stats.batches);
});

test('a lost race comes back as such, and no update is lost', async (t) => {
  const { records } = useThings(t);
  await records.commit(commitOf(insert('counter')));
  const changed = new Failure('Aborted', 'changed: aborted');
  let lost = 0;
  const increment = async () => {
    for (;;) {
      const { number } = records.get<{ number: number }>('SELECT number FROM things_thing WHERE id = ?', 'counter')!;
      try {
        return await records.commit(
          commitOf({
            sql: 'UPDATE things_thing SET number = ? WHERE id = ? AND number = ?',
            params: [number + 1, 'counter', number],
            rows: 1,
            otherwise: changed,
          }),
        );
      } catch (error) {
        t.true(Failure.is(error, 'Aborted'));
        lost += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: 50 }, increment));
  t.is(records.get<{ number: number }>('SELECT number FROM things_thing WHERE id = ?', 'counter')!.number, 50);
  t.true(lost > 0);
});

test('closing answers what waits; afterwards nothing is taken', async (t) => {
  const { records, engine } = useThings(t);
  const waiting = records.commit(commitOf(insert('a')));
  engine.close();
  t.is((await waiting).sequence, 1);
  t.is(((await t.throwsAsync(records.commit(commitOf(insert('b'))))) as Failure).code, 'Unavailable');
});

test('before the migrations nothing is taken', async (t) => {
  const { path } = useThings(t);
  const engine = new Engine({ path: `${path}.new` });
  t.teardown(() => engine.close());
  t.is(((await t.throwsAsync(engine.commit(CommitRequest.create()))) as Failure).code, 'Unavailable');
});

test('the log is emptied into the database as it grows', async (t) => {
  const { records, engine } = useThings(t);
  const blob = new Uint8Array(4000);
  for (let round = 0; round < 3; round++) {
    await Promise.all(
      Array.from({ length: 1500 }, () =>
        records.commit(commitOf({ sql: 'INSERT INTO things_big (blob) VALUES (?)', params: [blob] })),
      ),
    );
    // The checkpoint comes after the answers.
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { walBytes, databaseBytes, fsyncs, batches } = engine.stats;
  t.true(databaseBytes > 10e6, `database ${databaseBytes}`);
  t.true(walBytes < 17e6, `log ${walBytes}`);
  t.true(fsyncs > batches);
});

test('readers see a commit as soon as it is answered, and none of a failed one', async (t) => {
  const { records, as } = useThings(t);
  const other = as('other');
  for (let index = 0; index < 100; index++) {
    await records.commit(commitOf(insert(`t${index}`)));
    t.truthy(other.get('SELECT 1 FROM things_thing WHERE id = ?', `t${index}`));
  }
});

test('busy is said around everything that waits for the disk', async (t) => {
  const said: string[] = [];
  const { records, tick } = openTestRecords(t, {
    busy: (what, limitMs, work) => {
      said.push(what);
      t.true(limitMs > 10_000);
      return work();
    },
  });
  await t.throwsAsync(records.commit(commitOf({ sql: 'nonsense' })));
  await tick();
  t.deepEqual(said, ['records open', 'records commit']);
});

test('while another process holds the lock commits are refused, together and not one after another', async (t) => {
  const { engine, path } = openTestRecords(t, { lockTimeoutMs: 50 });
  const other = new DatabaseSync(path);
  t.teardown(() => other.close());
  other.exec('BEGIN IMMEDIATE');
  const namespaces = Array.from({ length: 300 }, (_, index) => ({ ...CommitRequest.create(), namespace: `n${index}` }));
  const results = await Promise.allSettled(namespaces.map((request) => engine.commit(request)));
  t.true(results.every((result) => result.status === 'rejected' && result.reason.code === 'Unavailable'));
  t.is(new Set(results.map((result) => result.status === 'rejected' && result.reason)).size, 1, 'one wait for all');
  other.exec('ROLLBACK');
  t.is((await engine.commit(namespaces[0]!)).sequence, 1n);
});
