/** One commit inside an open savepoint: its statements with what they expect, then what rides along. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type {
  CommitRequest,
  CommitResponse,
  Expectation,
  LeaseMembership,
  Statement,
  StatementResult,
} from 'troupe/proto/troupe/records/v1/records.ts';
import { Failure, type FailureCode, failureCodes } from 'troupe/plugin';
import { quote } from '../lib/identifier/quote.ts';
import { nowNanoseconds } from '../lib/timestamp/timestamp.ts';
import { classify, isDuplicate } from './sqlite-error.ts';
import type { Statements } from './statements.ts';
import { fromSql, toSql } from './value.ts';

export class CommitRunner {
  readonly #statements: Statements;
  readonly #namespace: StatementSync;
  readonly #lease: StatementSync | undefined;
  readonly #addResource: StatementSync;
  readonly #removeResource: StatementSync;
  readonly #event: StatementSync;
  readonly #trash: StatementSync;
  #mutations = 0;
  #removals = 0;

  constructor(database: DatabaseSync, statements: Statements) {
    this.#statements = statements;
    this.#namespace = database.prepare('INSERT OR IGNORE INTO records_namespace (name) VALUES (?)');
    // Leases belong to a noun of their own, which may not be planned; then there are none.
    const leases = database
      .prepare("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = 'leases_gc_node'")
      .get();
    this.#lease = leases && database.prepare("SELECT 1 FROM leases_gc_node WHERE kind = 'lease' AND ns = ? AND id = ?");
    this.#addResource = database.prepare(
      'INSERT OR IGNORE INTO records_lease_resource (ns, lease, type, id) VALUES (?, ?, ?, ?)',
    );
    this.#removeResource = database.prepare(
      'DELETE FROM records_lease_resource WHERE ns = ? AND lease = ? AND type = ? AND id = ?',
    );
    this.#event = database.prepare(
      'INSERT INTO records_outbox (ns, topic, type_url, value, at) VALUES (?, ?, ?, ?, ?)',
    );
    this.#trash = database.prepare('INSERT INTO records_trash (owner, path) VALUES (?, ?)');
  }

  /** Its statements can only make the database smaller. */
  frees(request: CommitRequest): boolean {
    return (
      (request.lease?.add.length ?? 0) === 0 &&
      request.statements.every(({ sql }) => /^\s*(delete|select)\b/i.test(sql))
    );
  }

  /** @throws Failure of an expectation that did not hold; SQLite's error otherwise. */
  run(request: CommitRequest, sequence: number): CommitResponse {
    this.#mutations += 1;
    if ((request.lease?.remove.length ?? 0) > 0) this.#removals += 1;
    if (request.namespace !== '') this.#namespace.run(request.namespace);
    const results = request.statements.map((statement) => this.#statement(request.writer, statement));
    if (request.lease !== undefined) this.#member(request.lease);
    for (const { namespace, topic, typeUrl, value } of request.events)
      this.#event.run(namespace, topic, typeUrl, value, nowNanoseconds());
    for (const { owner, path } of request.trash) this.#trash.run(owner, path);
    return { sequence: BigInt(sequence), results };
  }

  /** Commits, and statements that updated or deleted, since the last time; what was rolled back counts too, since they only hint when to collect. */
  takeCounts(): { mutations: number; removals: number } {
    const counts = { mutations: this.#mutations, removals: this.#removals };
    this.#mutations = 0;
    this.#removals = 0;
    return counts;
  }

  #statement(writer: string, { sql, params, rows, otherwise, conflict }: Statement): StatementResult {
    const result = this.#execute(writer, sql, params, conflict);
    if (rows === undefined) return result;
    const count = result.rows.length > 0 ? BigInt(result.rows.length) : result.changes;
    if (count === rows) return result;
    if (otherwise !== undefined) throw failureOf(otherwise);
    throw new Failure(
      'Aborted',
      `records: ${count} rows where ${rows} were expected, of ${sql.slice(0, 200)}: aborted`,
    );
  }

  #execute(
    writer: string,
    sql: string,
    params: Statement['params'],
    conflict: Expectation | undefined,
  ): StatementResult {
    try {
      return this.#statements.as(writer, () => {
        const { statement, returns, removes } = this.#statements.prepare(writer, sql);
        if (removes) this.#removals += 1;
        const values = params.map(toSql);
        if (!returns) return { changes: BigInt(statement.run(...values).changes), rows: [] };
        const found = statement.all(...values) as unknown as Parameters<typeof fromSql>[0][][];
        return { changes: BigInt(found.length), rows: found.map((row) => ({ values: row.map(fromSql) })) };
      });
    } catch (error) {
      if (classify(error) !== 'constraint') throw error;
      if (conflict !== undefined) throw failureOf(conflict);
      if (isDuplicate(error))
        throw new Failure('AlreadyExists', `records: ${(error as Error).message}: already exists`, { cause: error });
      throw error;
    }
  }

  #member({ namespace, lease, add, remove }: LeaseMembership): void {
    if (this.#lease?.get(namespace, lease) === undefined)
      throw new Failure('NotFound', `lease ${quote(lease)}: not found`);
    for (const { type, id } of add) this.#addResource.run(namespace, lease, type, id);
    for (const { type, id } of remove) this.#removeResource.run(namespace, lease, type, id);
  }
}

function failureOf({ code, message }: Expectation): Failure {
  return new Failure(code in failureCodes ? (code as FailureCode) : 'Unknown', message);
}
