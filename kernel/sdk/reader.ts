/**
 * A plugin's records: reads on its own read-only connection to the database file, commits as one message to the records plugin.
 *
 * The connection is opened at the first read, since a plugin may start before the file exists, and kept. Statements are prepared once
 * per text: build few texts and many parameters. WAL gives every statement its own consistent snapshot without a lock, and a read that
 * starts after a commit was answered sees it.
 */
import { DatabaseSync, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import {
  CommitRequest,
  CommitResponse,
  type StatementResult,
  type Value,
} from 'troupe/proto/troupe/records/v1/records.ts';
import { Failure } from './failure.ts';
import type { Commit, CommitResult, Records, SqlValue, Statement } from './records.ts';

/** Sends an encoded troupe.records.v1.CommitRequest and resolves to the encoded CommitResponse. */
export type CommitFunction = (
  request: Uint8Array,
  options: { signal?: AbortSignal; timeoutMs?: number },
) => Promise<Uint8Array>;

/** The records of one plugin, and the end of its connection. */
export interface OpenRecords extends Records {
  close(): void;
}

/** Statements kept prepared per connection; the one unused for longest goes. */
const maxStatements = 256;
/** SQLITE_CANTOPEN */
const cannotOpen = 14;
/** How long a read waits while another connection recovers the log after a crash. */
const busyTimeoutMs = 5000;

/**
 * @param path the database file; it need not exist before the first read.
 * @param writer prefix of the tables it may write; empty when it keeps no records.
 * @throws from reads: Failure Unavailable while the file cannot be opened; SQLite's own errors for wrong SQL.
 */
export function openRecords(path: string, writer: string, commit: CommitFunction): OpenRecords {
  const reader = new Reader(path);
  return {
    all: <T>(sql: string, ...params: SqlValue[]) => reader.all(sql, params) as T[],
    get: <T>(sql: string, ...params: SqlValue[]) => reader.get(sql, params) as T | undefined,
    async commit(changes, options = {}) {
      return decodeCommit(await commit(encodeCommit(changes, writer), options));
    },
    close: () => reader.close(),
  };
}

class Reader {
  readonly #path: string;
  #database: DatabaseSync | undefined;
  readonly #statements = new Map<string, StatementSync>();
  /** Statements that returned an integer beyond 2^53 once; they are read as bigint ever after. */
  readonly #wide = new Set<string>();

  constructor(path: string) {
    this.#path = path;
  }

  all(sql: string, params: SqlValue[]): unknown[] {
    return this.#read(
      sql,
      (statement) => statement.all(...params),
      (rows) => rows.map(narrow),
    );
  }

  get(sql: string, params: SqlValue[]): unknown {
    return this.#read(
      sql,
      (statement) => statement.get(...params),
      (row) => row && narrow(row),
    );
  }

  #read<T>(sql: string, run: (statement: StatementSync) => T, narrowed: (result: T) => T): T {
    try {
      const statement = this.#prepare(sql);
      if (!this.#wide.has(sql)) {
        try {
          return run(statement);
        } catch (error) {
          this.#widen(sql, statement, error);
        }
      }
      return narrowed(run(statement));
    } catch (error) {
      // The log and its index are opened by the first statement: with no descriptor left that fails, and works when there are some again.
      if ((error as { errcode?: number }).errcode === cannotOpen) throw this.#unavailable(error);
      throw error;
    }
  }

  close(): void {
    this.#statements.clear();
    this.#database?.close();
    this.#database = undefined;
  }

  #widen(sql: string, statement: StatementSync, error: unknown): void {
    // node:sqlite refuses to round; there is no mode that gives a bigint only where one is needed.
    if ((error as NodeJS.ErrnoException).code !== 'ERR_OUT_OF_RANGE') throw error;
    statement.setReadBigInts(true);
    this.#wide.add(sql);
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) {
      if (this.#statements.size < maxStatements / 2) return known;
      this.#statements.delete(sql);
      this.#statements.set(sql, known);
      return known;
    }
    const statement = this.#open().prepare(sql);
    this.#statements.set(sql, statement);
    if (this.#statements.size > maxStatements) {
      const oldest = this.#statements.keys().next().value!;
      this.#statements.delete(oldest);
      this.#wide.delete(oldest);
    }
    return statement;
  }

  #open(): DatabaseSync {
    if (this.#database !== undefined) return this.#database;
    try {
      this.#database = new DatabaseSync(this.#path, { readOnly: true, timeout: busyTimeoutMs });
    } catch (error) {
      throw this.#unavailable(error);
    }
    return this.#database;
  }

  #unavailable(error: unknown): Failure {
    return new Failure('Unavailable', `records ${this.#path}: ${(error as Error).message}: unavailable`, {
      cause: error,
    });
  }
}

function narrow(row: { [column: string]: SQLOutputValue }): { [column: string]: SQLOutputValue } {
  for (const column of Object.keys(row)) {
    const value = row[column];
    if (typeof value === 'bigint' && BigInt.asIntN(54, value) === value) row[column] = Number(value);
  }
  return row;
}

/** The bytes of a commit, with a new random id: sent again as they are, they have the outcome of the first time. */
export function encodeCommit(commit: Commit, writer: string): Uint8Array {
  const { lease } = commit;
  return CommitRequest.encode({
    id: randomId(),
    writer,
    statements: commit.statements.map(toStatement),
    namespace: commit.namespace ?? '',
    lease: lease && {
      namespace: lease.namespace,
      lease: lease.id,
      add: [...(lease.add ?? [])],
      remove: [...(lease.remove ?? [])],
    },
    events: (commit.events as CommitRequest['events'] | undefined) ?? [],
    trash: (commit.trash as CommitRequest['trash'] | undefined) ?? [],
  }).finish();
}

export function decodeCommit(bytes: Uint8Array): CommitResult {
  const { sequence, results } = CommitResponse.decode(bytes);
  return { sequence: Number(sequence), results: results.map(fromResult) };
}

// Random bytes are drawn in bulk: one system call for 256 commits instead of one each.
const pool = new Uint8Array(4096);
let used = pool.length;

function randomId(): Uint8Array {
  if (used === pool.length) {
    // Asked for when the first id is needed: the module takes 1.2 MB in each worker, and most of them write rarely.
    process.getBuiltinModule('node:crypto').randomFillSync(pool);
    used = 0;
  }
  used += 16;
  return pool.slice(used - 16, used);
}

function toStatement(statement: Statement): CommitRequest['statements'][number] {
  return {
    sql: statement.sql,
    params: (statement.params ?? []).map(toValue),
    rows: statement.rows === undefined ? undefined : BigInt(statement.rows),
    otherwise: statement.otherwise && { code: statement.otherwise.code, message: statement.otherwise.message },
    conflict: statement.conflict && { code: statement.conflict.code, message: statement.conflict.message },
  };
}

function toValue(value: SqlValue): Value {
  switch (typeof value) {
    case 'string':
      return { text: value };
    case 'bigint':
      return { integer: value };
    case 'number':
      return Number.isSafeInteger(value) ? { integer: BigInt(value) } : { real: value };
    default:
      return value === null ? { null: true } : { blob: value };
  }
}

function fromResult(result: StatementResult): CommitResult['results'][number] {
  return { changes: Number(result.changes), rows: result.rows.map(({ values }) => values.map(fromValue)) };
}

function fromValue(value: Value): SqlValue {
  if (value.text !== undefined) return value.text;
  if (value.integer !== undefined)
    return BigInt.asIntN(54, value.integer) === value.integer ? Number(value.integer) : value.integer;
  if (value.blob !== undefined) return value.blob;
  return value.real ?? null;
}
