/** A noun for tests: things with a number, and triggers that write what is records'. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type Commit, Failure, type SqlValue } from 'troupe/plugin';
import { type TestRecords, useRecords } from './records.ts';

const migration = `
  CREATE TABLE things_thing (id TEXT PRIMARY KEY, number INTEGER NOT NULL DEFAULT 0 CHECK (number < 1000000), extra ANY) STRICT, WITHOUT ROWID;
  CREATE TABLE things_big (id INTEGER PRIMARY KEY, value INTEGER, real REAL, blob BLOB) STRICT;
  CREATE TRIGGER things_trash AFTER DELETE ON things_thing BEGIN
    INSERT INTO records_trash (owner, path) VALUES ('things', old.id);
    INSERT INTO records_event (ns, topic, type_url, first) VALUES ('default', '/things/delete', 'T', old.id);
  END;
  CREATE TRIGGER things_keep BEFORE DELETE ON things_thing WHEN old.id = 'kept' BEGIN SELECT RAISE(ABORT, 'kept stays'); END;
`;

export function useThings(t: ExecutionContext, ...others: string[]): TestRecords {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-things-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, '001-things.sql'), migration);
  return useRecords(t, { prefix: 'things', dir }, ...others);
}

export const insert = (id: string, number = 0) => ({
  sql: 'INSERT INTO things_thing (id, number) VALUES (?, ?)',
  params: [id, number] as SqlValue[],
  conflict: new Failure('AlreadyExists', `thing "${id}": already exists`),
});

export const commitOf = (...statements: Commit['statements']): Commit => ({ statements });
