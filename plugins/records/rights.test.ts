import test from 'ava';
import type { Failure } from 'troupe/plugin';
import { commitOf, insert, useThings } from '../../test/helpers/things.ts';

for (const sql of [
  "INSERT INTO records_meta (key, value) VALUES ('a', 'b')",
  "INSERT INTO records_namespace (name) VALUES ('a')",
  'DELETE FROM records_outbox',
  "INSERT INTO records_trash (owner, path) VALUES ('a', 'b')",
  'DROP TABLE things_thing',
  'CREATE TABLE things_other (a)',
  'CREATE TEMP TABLE things_other (a)',
  'PRAGMA synchronous = OFF',
  "ATTACH '/tmp/x' AS x",
  'COMMIT',
  'ROLLBACK',
  'SAVEPOINT a',
  'VACUUM',
  "SELECT load_extension('x')",
])
  test(`a writer may not: ${sql}`, async (t) => {
    const { records, engine } = useThings(t);
    const failure = (await t.throwsAsync(records.commit(commitOf({ sql })))) as Failure;
    t.true(['PermissionDenied', 'Internal'].includes(failure.code), failure.message);
    t.false(engine.database.isTransaction);
    t.is((await records.commit(commitOf(insert('still works')))).results[0]!.changes, 1);
  });

test('a writer may write its own tables, read all, and delete trash', async (t) => {
  const { records, as, rows } = useThings(t);
  await records.commit({ ...commitOf(insert('a')), trash: [{ owner: 'things', path: 'p' }] });
  await records.commit(
    commitOf(
      { sql: 'SELECT * FROM records_commit' },
      { sql: 'DELETE FROM records_trash WHERE owner = ?', params: ['things'], rows: 1 },
    ),
  );
  t.is(rows('records_trash').length, 0);
  const other = as('thing');
  t.is(((await t.throwsAsync(other.commit(commitOf(insert('b'))))) as Failure).code, 'PermissionDenied');
  t.is(((await t.throwsAsync(as('').commit(commitOf(insert('b'))))) as Failure).code, 'PermissionDenied');
});
