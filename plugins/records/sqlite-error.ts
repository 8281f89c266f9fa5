/** What an error of SQLite means to the writer. Result codes: https://sqlite.org/rescode.html */

/**
 * - `full`: no room on the disk; the transaction is gone, the file is fine
 * - `fatal`: what is on the disk is not known any more; nothing may be written after it
 * - `constraint`: a UNIQUE, CHECK, NOT NULL, FOREIGN KEY constraint or a trigger's RAISE refused it
 * - `locked`: another process holds the write lock, and kept it
 * - `denied`: the authorizer refused the statement
 * - `other`: wrong SQL, wrong parameters, and whatever is not SQLite's
 */
export type SqliteErrorClass = 'full' | 'fatal' | 'constraint' | 'locked' | 'denied' | 'other';

const FULL = 13;
const IOERR_SHMSIZE = 10 | (19 << 8);
const FATAL = new Set([10 /* IOERR */, 11 /* CORRUPT */, 14 /* CANTOPEN */, 26 /* NOTADB */]);
const LOCKED = new Set([5 /* BUSY */, 6 /* LOCKED */]);
const CONSTRAINT = 19;
const AUTH = 23;

const UNIQUE = new Set([CONSTRAINT | (8 << 8), CONSTRAINT | (6 << 8), CONSTRAINT | (10 << 8)]);

/** SQLite's extended result code; undefined when the error is not SQLite's. */
export function resultCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || (error as NodeJS.ErrnoException).code !== 'ERR_SQLITE_ERROR') return undefined;
  return (error as Error & { errcode?: number }).errcode;
}

export function classify(error: unknown): SqliteErrorClass {
  const code = resultCode(error);
  if (code === undefined) return 'other';
  // The index of the log lies in shared memory that is a file too; when that cannot grow, nothing of the database was touched.
  if (code === IOERR_SHMSIZE) return 'full';
  const primary = code & 0xff;
  if (primary === FULL) return 'full';
  if (FATAL.has(primary)) return 'fatal';
  if (primary === CONSTRAINT) return 'constraint';
  if (LOCKED.has(primary)) return 'locked';
  return primary === AUTH ? 'denied' : 'other';
}

/** Whether the row is there already: UNIQUE, PRIMARY KEY or ROWID. */
export function isDuplicate(error: unknown): boolean {
  return UNIQUE.has(resultCode(error) ?? 0);
}
