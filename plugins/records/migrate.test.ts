import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test, { type ExecutionContext } from 'ava';
import { type MigrationFolder, migrate } from './migrate.ts';

const own: MigrationFolder = { prefix: 'records', dir: join(import.meta.dirname, 'migrations') };

function useMigrations(t: ExecutionContext) {
  const root = mkdtempSync(join(tmpdir(), 'troupe-migrate-'));
  const database = new DatabaseSync(':memory:');
  t.teardown(() => {
    database.close();
    rmSync(root, { recursive: true, force: true });
  });
  const folder = (prefix: string, files: { [name: string]: string }): MigrationFolder => {
    const dir = join(root, prefix);
    mkdirSync(dir, { recursive: true });
    for (const [name, sql] of Object.entries(files)) writeFileSync(join(dir, name), sql);
    return { prefix, dir };
  };
  const tables = () =>
    database
      .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'a_*' ORDER BY name")
      .all()
      .map(({ name }) => name);
  return { database, folder, tables };
}

test('each runs once, in order, records first', (t) => {
  const { database, folder, tables } = useMigrations(t);
  const a = folder('a', {
    '002-second.sql': 'CREATE TABLE a_two (x); INSERT INTO a_one VALUES (1);',
    '001-first.sql': "CREATE TABLE a_one (x); INSERT INTO records_namespace (name) VALUES ('n');",
  });
  t.deepEqual(migrate(database, [a, own]), ['records/001-records.sql', 'a/001-first.sql', 'a/002-second.sql']);
  t.deepEqual(tables(), ['a_one', 'a_two']);
  t.deepEqual(migrate(database, [a, own]), []);
  folder('a', { '003-third.sql': 'CREATE TABLE a_three (x)' });
  t.deepEqual(migrate(database, [a, own]), ['a/003-third.sql']);
});

test('a plugin without migrations, or without the folder, is fine', (t) => {
  const { database, folder } = useMigrations(t);
  t.deepEqual(migrate(database, [folder('a', {}), { prefix: 'b', dir: '/nonexistent' }]), []);
});

test('one that fails leaves nothing of itself', (t) => {
  const { database, folder, tables } = useMigrations(t);
  const a = folder('a', {
    '001-good.sql': 'CREATE TABLE a_one (x)',
    '002-bad.sql': 'CREATE TABLE a_two (x); nonsense;',
  });
  t.like(
    t.throws(() => migrate(database, [a])),
    {
      code: 'FailedPrecondition',
      message: 'records: migration a/002-bad.sql: near "nonsense": syntax error: failed precondition',
    },
  );
  t.deepEqual(tables(), ['a_one']);
  t.false(database.isTransaction);
  folder('a', { '002-bad.sql': 'CREATE TABLE a_two (x)' });
  t.deepEqual(migrate(database, [a]), ['a/002-bad.sql']);
});

test('a changed, an unknown and a misnamed migration are refused', (t) => {
  const { database, folder } = useMigrations(t);
  const a = folder('a', { '001-one.sql': 'CREATE TABLE a_one (x)' });
  migrate(database, [a]);
  folder('a', { '001-one.sql': 'CREATE TABLE a_one (y)' });
  t.regex(t.throws(() => migrate(database, [a])).message, /a\/001-one.sql is not the one that made this database/);
  rmSync(join(a.dir, '001-one.sql'));
  t.regex(t.throws(() => migrate(database, [a])).message, /written by a newer version: migration a\/001-one.sql/);
  t.regex(t.throws(() => migrate(database, [folder('b', { '1.sql': '' })])).message, /must be NNN-words.sql/);
});

test('a noun makes tables, views, triggers and indexes of its own name only', (t) => {
  const { database, folder, tables } = useMigrations(t);
  for (const sql of [
    'CREATE TABLE b_one (x)',
    'CREATE TABLE a_one (x); CREATE INDEX one ON a_one (x)',
    'CREATE VIEW ab AS SELECT 1',
  ])
    t.regex(
      t.throws(() => migrate(database, [folder('a', { '001-one.sql': sql })])).message,
      /does not start with a_/,
      sql,
    );
  t.deepEqual(tables(), []);
});
