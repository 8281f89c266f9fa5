/**
 * Opens and closes the database file, and finds out whether it can be trusted.
 *
 *     <root>/troupe.records.v1.records/
 *       records.db            SQLite, WAL, synchronous=FULL
 *       records.db-wal, -shm  its log and the log's index
 *       records.db.open       there while a daemon has it open: found at start, the last one was killed, and pages are checked
 *       records.db.made       there since the schema first was: a database without tables beside it has lost them
 *       records.db.reserve    room kept back for deletes on a full disk
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, statSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Failure } from 'troupe/plugin';
import { classify } from './sqlite-error.ts';

export interface OpenOptions {
  /** Default true; false: `PRAGMA synchronous=OFF`, for who would rather lose records than wait. */
  readonly durable?: boolean;
  readonly lockTimeoutMs?: number;
  /** A generation before has closed it for this one, and has said so. */
  readonly handedOver?: boolean;
  /** A connection to it that is open already. */
  readonly standby?: DatabaseSync;
}

/** Bytes that the log may keep on disk after a checkpoint. */
const journalSizeLimit = 16 << 20;
/** The index pages that most commits touch, of a database of some hundred megabytes; taken only as it grows. */
const cacheKiB = 16_384;
/** How long to wait for the write lock: only a daemon on the same root, or a tool, can hold it. */
const busyTimeoutMs = 5000;

export interface OpenDatabase {
  readonly database: DatabaseSync;
  /** The last one who had it open did not close it. */
  readonly unclean: boolean;
}

/**
 * @throws Failure DataLoss when the file is no database, its pages do not hold together or its tables are gone, FailedPrecondition when it is another
 *   program's, Unavailable when it cannot be opened.
 */
export function openDatabase(
  path: string,
  { durable = true, lockTimeoutMs = busyTimeoutMs, handedOver = false, standby }: OpenOptions,
): OpenDatabase {
  if (handedOver && standby !== undefined) return { database: standby, unclean: false };
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const found = statSync(`${path}.open`, { throwIfNoEntry: false }) !== undefined;
  const unclean = found && !handedOver;
  // SQLite would make it readable for all; the log and its index take the file's mode.
  closeSync(openSync(path, 'a', 0o600));
  let database: DatabaseSync | undefined;
  try {
    database = connect(path, durable, lockTimeoutMs);
    if (unclean) quickCheck(database, path);
    if (!found) mark(`${path}.open`);
    return { database, unclean };
  } catch (error) {
    database?.close();
    throw refusal(path, error);
  }
}

/**
 * A connection beside that of the generation that has the file, for the time when it is handed over; until then it reads. Not looked into: whoever has it open
 * trusts it. Undefined when nobody has.
 *
 * @throws Failure as {@link openDatabase}
 */
export function openStandby(
  path: string,
  { durable = true, lockTimeoutMs = busyTimeoutMs }: OpenOptions,
): DatabaseSync | undefined {
  if (statSync(`${path}.open`, { throwIfNoEntry: false }) === undefined) return undefined;
  try {
    return connect(path, durable, lockTimeoutMs);
  } catch (error) {
    throw refusal(path, error);
  }
}

function connect(path: string, durable: boolean, lockTimeoutMs: number): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    // Labels and names are data and never SQL; a double-quoted string would be taken for a column that happens not to exist.
    database = new DatabaseSync(path, { timeout: lockTimeoutMs, enableForeignKeyConstraints: true });
    requireOurs(database, path);
    // FULL before the first write: the change to WAL is one.
    database.exec(`PRAGMA synchronous = ${durable ? 'FULL' : 'OFF'}`);
    const { journal_mode: mode } = database.prepare('PRAGMA journal_mode = WAL').get() as { journal_mode: string };
    if (mode !== 'wal')
      throw new Failure(
        'Unavailable',
        `records ${path}: no write-ahead log on this file system (${mode}): unavailable`,
      );
    // The engine checkpoints by itself, after the answers went out.
    database.exec(
      `PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = ${journalSizeLimit}; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -${cacheKiB}`,
    );
    return database;
  } catch (error) {
    database?.close();
    throw error;
  }
}

function refusal(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const damaged = classify(error) === 'fatal';
  return new Failure(
    damaged ? 'DataLoss' : 'Unavailable',
    `records ${path}: ${(error as Error).message}: ${damaged ? 'data loss' : 'unavailable'}`,
    { cause: error },
  );
}

/** Empties the log into the database, closes it, and says that it was closed. */
export function closeDatabase(path: string, database: DatabaseSync): void {
  try {
    database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  } catch (error) {
    // On a full disk the log stays; it is as good as the database.
    if (classify(error) !== 'full') throw error;
  }
  database.close();
  unlinkSync(`${path}.open`);
}

/** Structure of every page, without the indexes: a second for a gigabyte. @throws Failure DataLoss. */
function quickCheck(database: DatabaseSync, path: string): void {
  const { quick_check: result } = database.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
  if (result !== 'ok') throw new Failure('DataLoss', `records ${path}: ${result}: data loss`);
}

/**
 * To begin with nothing where something was would be the end of everything else: blobs and snapshots that no record names are cleared away.
 *
 * @throws Failure DataLoss, FailedPrecondition
 */
function requireOurs(database: DatabaseSync, path: string): void {
  const rows = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all() as { name: string }[];
  const names = rows.map(({ name }) => name);
  if (names.includes('records_migration')) return;
  const [stranger] = names;
  if (stranger !== undefined)
    throw new Failure(
      'FailedPrecondition',
      `records ${path}: a database of another program, with a table ${stranger}: failed precondition`,
    );
  if (existsSync(`${path}.made`))
    throw new Failure(
      'DataLoss',
      `records ${path}: it is empty, and was not: put a copy in its place, or remove ${path}.made to begin with nothing, which clears all content and snapshots: data loss`,
    );
}

/** Says that the database has its tables, which it must not be without from now on. */
export function markMade(path: string): void {
  if (!existsSync(`${path}.made`)) mark(`${path}.made`);
}

function mark(path: string): void {
  closeSync(openSync(path, 'w', 0o600));
  const directory = openSync(dirname(path), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
