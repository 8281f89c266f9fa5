import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test, { type ExecutionContext } from 'ava';
import { CommitRequest, CommitResponse } from 'troupe/proto/troupe/records/v1/records.ts';
import { Failure } from './failure.ts';
import { type CommitFunction, openRecords } from './reader.ts';

function useDatabase(t: ExecutionContext, commit: CommitFunction = () => Promise.reject(new Error('no writer'))) {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-reader-'));
  const path = join(directory, 'records.db');
  const records = openRecords(path, 'things', commit);
  t.teardown(() => {
    records.close();
    rmSync(directory, { recursive: true, force: true });
  });
  const write = (sql: string) => {
    const database = new DatabaseSync(path);
    database.exec(`PRAGMA journal_mode = WAL; ${sql}`);
    database.close();
  };
  return { records, write, path };
}

test('opens when the file is there, and says so before', (t) => {
  const { records, write } = useDatabase(t);
  t.like(
    t.throws(() => records.all('SELECT 1'), { instanceOf: Failure }),
    { code: 'Unavailable' },
  );
  write('CREATE TABLE a (x); INSERT INTO a VALUES (1)');
  t.is(records.get<{ x: number }>('SELECT x FROM a')!.x, 1);
  t.is(records.get('SELECT x FROM a WHERE x = ?', 2), undefined);
});

test('a log that cannot be opened is Unavailable, and is read when it can', (t) => {
  const { records, write, path } = useDatabase(t);
  write('CREATE TABLE a (x); INSERT INTO a VALUES (1)');
  // As with no descriptor left: the file itself is open by then.
  mkdirSync(`${path}-wal`);
  for (const read of [() => records.all('SELECT x FROM a'), () => records.get('SELECT x FROM a')])
    t.like(t.throws(read, { instanceOf: Failure, message: /unable to open database file: unavailable$/ }), {
      code: 'Unavailable',
    });
  rmdirSync(`${path}-wal`);
  t.is(records.get<{ x: number }>('SELECT x FROM a')!.x, 1);
});

test('cannot write', (t) => {
  const { records, write } = useDatabase(t);
  write('CREATE TABLE a (x)');
  t.throws(() => records.all('INSERT INTO a VALUES (1)'), { message: /readonly/ });
});

test('integers are numbers, and bigints only beyond 2^53', (t) => {
  const { records, write } = useDatabase(t);
  write('CREATE TABLE a (x); INSERT INTO a VALUES (1), (9007199254740993), (-9223372036854775808), (0.5), (NULL)');
  for (let count = 0; count < 2; count++) {
    t.deepEqual(
      records.all<{ x: unknown }>('SELECT x FROM a ORDER BY rowid').map(({ x }) => x),
      [1, 9_007_199_254_740_993n, -(2n ** 63n), 0.5, null],
    );
    t.is(records.get<{ x: unknown }>('SELECT x FROM a WHERE x = ?', 9_007_199_254_740_993n)!.x, 9_007_199_254_740_993n);
    t.is(records.get<{ x: unknown }>('SELECT x FROM a WHERE x = ?', 1)!.x, 1);
  }
});

test('many different statements, and a schema that changes under them', (t) => {
  const { records, write } = useDatabase(t);
  write('CREATE TABLE a (x); INSERT INTO a VALUES (1)');
  for (let count = 0; count < 600; count++)
    t.is(records.get<{ x: number }>(`SELECT x + ${count} AS x FROM a`)!.x, 1 + count);
  t.is(Object.keys(records.get('SELECT * FROM a')!).length, 1);
  write('ALTER TABLE a ADD COLUMN y');
  t.is(Object.keys(records.get('SELECT * FROM a')!).length, 2);
});

test('a commit travels as one message with an id of its own', async (t) => {
  const requests: CommitRequest[] = [];
  const options: unknown[] = [];
  const { records } = useDatabase(t, async (bytes, given) => {
    requests.push(CommitRequest.decode(bytes));
    options.push(given);
    return CommitResponse.encode({
      sequence: 7n,
      results: [
        {
          changes: 1n,
          rows: [
            { values: [{ text: 'a' }, { integer: 5n }, { integer: 2n ** 60n }, { null: true }, {}, { real: 0.5 }] },
          ],
        },
      ],
    }).finish();
  });
  const result = await records.commit(
    {
      statements: [
        {
          sql: 'S',
          params: ['a', 1, 1.5, 2n ** 60n, null, new Uint8Array([1])],
          rows: 1,
          otherwise: new Failure('NotFound', 'n'),
        },
        { sql: 'S2', rows: 0, conflict: new Failure('AlreadyExists', 'e') },
      ],
      namespace: 'ns',
      lease: { namespace: 'ns', id: 'l', add: [{ type: 'content', id: 'd' }] },
      events: [{ namespace: 'ns', topic: '/t', typeUrl: 'T', value: new Uint8Array([9]) }],
      trash: [{ owner: 'o', path: 'p' }],
    },
    { timeoutMs: 5 },
  );
  t.deepEqual(result, { sequence: 7, results: [{ changes: 1, rows: [['a', 5, 2n ** 60n, null, null, 0.5]] }] });
  t.deepEqual(options, [{ timeoutMs: 5 }]);
  const [request] = requests;
  t.like(request, {
    writer: 'things',
    namespace: 'ns',
    lease: { namespace: 'ns', lease: 'l', add: [{ type: 'content', id: 'd' }], remove: [] },
    events: [{ namespace: 'ns', topic: '/t', typeUrl: 'T', value: new Uint8Array([9]) }],
    trash: [{ owner: 'o', path: 'p' }],
  });
  t.like(request!.statements[0]!.params, [
    { text: 'a' },
    { integer: 1n },
    { real: 1.5 },
    { integer: 2n ** 60n },
    { null: true },
    { blob: new Uint8Array([1]) },
  ]);
  t.like(request!.statements[0], { rows: 1n, otherwise: { code: 'NotFound', message: 'n' }, conflict: undefined });
  t.like(request!.statements[1], { rows: 0n, otherwise: undefined, conflict: { code: 'AlreadyExists', message: 'e' } });
  for (let count = 0; count < 600; count++) await records.commit({ statements: [] });
  t.is(new Set(requests.map(({ id }) => Buffer.from(id).toString('hex'))).size, 601);
  t.true(requests.every(({ id }) => id.length === 16));
});
