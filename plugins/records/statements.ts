/** Prepared statements, kept per writer because the authorizer judged them for it. */
import { constants, type DatabaseSync, type StatementSync } from 'node:sqlite';
import { authorize } from './rights.ts';

export interface Prepared {
  readonly statement: StatementSync;
  /** It returns rows: a SELECT, or with RETURNING. */
  readonly returns: boolean;
  /** It takes something away or points it elsewhere: what it was about may be garbage now. */
  readonly removes: boolean;
}

/** Per writer; the one unused for longest goes. */
const maxStatements = 256;

export class Statements {
  readonly #database: DatabaseSync;
  readonly #writers = new Map<string, Map<string, Prepared>>();
  /** Whose statement is being prepared or run; undefined: the engine's own, which may do all. SQLite prepares again when the schema changed. */
  #writer: string | undefined;

  constructor(database: DatabaseSync) {
    this.#database = database;
    database.setAuthorizer((action, table, second, _database, trigger) =>
      this.#writer === undefined
        ? constants.SQLITE_OK
        : authorize(this.#writer, action, table, action === constants.SQLITE_FUNCTION ? second : null, trigger),
    );
  }

  /** Runs `work` with the rights of `writer`. */
  as<T>(writer: string, work: () => T): T {
    this.#writer = writer;
    try {
      return work();
    } finally {
      this.#writer = undefined;
    }
  }

  /** @throws SQLite's error when it does not parse or the writer may not. */
  prepare(writer: string, sql: string): Prepared {
    let statements = this.#writers.get(writer);
    if (statements === undefined) {
      statements = new Map();
      this.#writers.set(writer, statements);
    }
    const known = statements.get(sql);
    if (known !== undefined) {
      if (statements.size < maxStatements / 2) return known;
      statements.delete(sql);
      statements.set(sql, known);
      return known;
    }
    const statement = this.#database.prepare(sql);
    statement.setReadBigInts(true);
    statement.setReturnArrays(true);
    const prepared = {
      statement,
      returns: statement.columns().length > 0,
      removes: /^\s*(delete|update)\b/i.test(sql),
    };
    statements.set(sql, prepared);
    if (statements.size > maxStatements) statements.delete(statements.keys().next().value!);
    return prepared;
  }

  clear(): void {
    this.#writers.clear();
  }
}
