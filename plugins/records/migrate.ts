/**
 * Brings the schema up to what the planned plugins need: runs each `migrations/NNN-name.sql` once, in order, each in a transaction of
 * its own together with the row that says it ran. A crash in between leaves whole migrations.
 *
 * Plugins in the order given, records first. A file that ran is never run again; that its text changed since is an error, because then
 * no two databases would have the same schema.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { Failure, failpoint } from 'troupe/plugin';

export interface MigrationFolder {
  /** Of the noun's tables. */
  readonly prefix: string;
  /** Absolute path; it need not exist. */
  readonly dir: string;
}

interface Migration {
  readonly prefix: string;
  readonly name: string;
  readonly sql: string;
  readonly sha256: string;
}

const fileName = /^\d{3}-[a-z0-9]+(?:-[a-z0-9]+)*\.sql$/;

/**
 * @returns names of the migrations that ran, as `prefix/NNN-name.sql`.
 * @throws Failure FailedPrecondition: a file name that is none, a changed or vanished migration, an object outside of the noun's prefix, wrong SQL.
 */
export function migrate(database: DatabaseSync, folders: readonly MigrationFolder[]): string[] {
  database.exec(`CREATE TABLE IF NOT EXISTS records_migration (
    prefix TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, at TEXT NOT NULL DEFAULT (datetime()), PRIMARY KEY (prefix, name)
  ) STRICT, WITHOUT ROWID`);
  const pending = pendingMigrations(database, folders);
  for (const migration of pending) apply(database, migration);
  return pending.map(({ prefix, name }) => `${prefix}/${name}`);
}

/** Those that have not run yet. Only reads, and asks for the table of those that ran. @throws Failure as {@link migrate}, but for wrong SQL */
export function pendingMigrations(database: DatabaseSync, folders: readonly MigrationFolder[]): Migration[] {
  const pending: Migration[] = [];
  const ordered = [...folders].sort((a, b) => Number(b.prefix === 'records') - Number(a.prefix === 'records'));
  for (const folder of ordered) {
    const known = appliedTo(database, folder.prefix);
    for (const migration of readMigrations(folder)) {
      const before = known.get(migration.name);
      known.delete(migration.name);
      if (before === undefined) pending.push(migration);
      else if (before !== migration.sha256)
        throw refused(`migration ${migration.prefix}/${migration.name} is not the one that made this database`);
    }
    const [newer] = known.keys();
    if (newer !== undefined)
      throw refused(
        `this database was written by a newer version: migration ${folder.prefix}/${newer} is not known here`,
      );
  }
  return pending;
}

function appliedTo(database: DatabaseSync, prefix: string): Map<string, string> {
  const rows = database.prepare('SELECT name, sha256 FROM records_migration WHERE prefix = ?').all(prefix);
  return new Map((rows as { name: string; sha256: string }[]).map(({ name, sha256 }) => [name, sha256]));
}

function readMigrations({ prefix, dir }: MigrationFolder): Migration[] {
  let names: string[];
  try {
    names = readdirSync(dir).filter((name) => name.endsWith('.sql'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.sort().map((name) => {
    if (!fileName.test(name)) throw refused(`migration ${prefix}/${name}: the name must be NNN-words.sql`);
    const sql = readFileSync(join(dir, name), 'utf8');
    return { prefix, name, sql, sha256: createHash('sha256').update(sql).digest('hex') };
  });
}

function apply(database: DatabaseSync, { prefix, name, sql, sha256 }: Migration): void {
  failpoint('records.migrate.begin');
  database.exec('BEGIN IMMEDIATE');
  try {
    const before = objectsOf(database);
    database.exec(sql);
    for (const object of objectsOf(database))
      if (!before.has(object) && !object.startsWith(`${prefix}_`) && !object.startsWith('sqlite_'))
        throw new Error(`${object} does not start with ${prefix}_`);
    database.prepare('INSERT INTO records_migration (prefix, name, sha256) VALUES (?, ?, ?)').run(prefix, name, sha256);
    failpoint('records.migrate.commit');
    database.exec('COMMIT');
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    if (error instanceof Failure) throw error;
    throw refused(`migration ${prefix}/${name}: ${(error as Error).message}`, error);
  }
  failpoint('records.migrate.end');
}

function objectsOf(database: DatabaseSync): Set<string> {
  const rows = database.prepare('SELECT name FROM sqlite_master').all() as { name: string }[];
  return new Set(rows.map(({ name }) => name));
}

function refused(text: string, cause?: unknown): Failure {
  return new Failure(
    'FailedPrecondition',
    `records: ${text}: failed precondition`,
    cause === undefined ? {} : { cause },
  );
}
