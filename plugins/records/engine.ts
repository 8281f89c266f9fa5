/**
 * The one writer of the database: runs commits in batches, and answers each when it is durable.
 *
 *     commit() ─▶ queue ─▶ BEGIN ─ SAVEPOINT commit 1 RELEASE ─ SAVEPOINT commit 2 ROLLBACK TO ─ … ─ COMMIT (fsync) ─▶ answers
 *
 * SQLite works synchronously, so what arrives while a batch runs waits in the thread's ports and shares the next batch: the slower the
 * disk, the more commits an fsync carries.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { CommitRequest } from 'troupe/proto/troupe/records/v1/records.ts';
import { CommitResponse } from 'troupe/proto/troupe/records/v1/records.ts';
import { Failure, failpoint } from 'troupe/plugin';
import { Checkpoint } from './checkpoint.ts';
import { CommitRunner } from './commit-runner.ts';
import { closeDatabase, markMade, openDatabase } from './database.ts';
import { keyOf, Outcomes } from './outcomes.ts';
import { Reserve } from './reserve.ts';
import { noSpace, toFailure } from './refusal.ts';
import { classify } from './sqlite-error.ts';
import type { Standby } from './standby.ts';
import { Statements } from './statements.ts';

export interface EngineOptions {
  readonly path: string;
  /** Default true; false does without fsync. */
  readonly durable?: boolean;
  /** How long to wait while another process has the file locked; default 5000. */
  readonly lockTimeoutMs?: number;
  /** A generation before has closed it for this one. */
  readonly handedOver?: boolean;
  /** What the generation that is to have it has made ready, if it was handed over. It becomes the engine's to close. */
  readonly standby?: Standby;
  /** Bytes kept back for deletes on a full disk; default none. */
  readonly reserve?: number;
  /** Around everything that may take long inside SQLite: tells the supervisor. */
  readonly busy?: <T>(what: string, limitMs: number, work: () => T) => T;
  /** Writing has ended for good: the disk failed, or the file is damaged. */
  readonly onEnd?: (failure: Failure) => void;
}

/** Commits of one batch: bounds the time to the first answer when thousands wait. */
const maxBatch = 4096;
/** How long a batch or a check may be inside SQLite before the thread counts as hung: disks that stall do come back. */
const busyLimitMs = 120_000;

interface Pending {
  /** Runs inside the transaction, in a savepoint; `sequence` is its number if it succeeds. */
  run(sequence: number): unknown;
  /** What to remember it by; empty: nothing. */
  readonly key: string;
  /** It can only make the database smaller. */
  readonly frees: () => boolean;
  resolve(outcome: never): void;
  reject(failure: Failure): void;
}

export class Engine {
  readonly #options: EngineOptions;
  readonly database: DatabaseSync;
  /** The file was not closed by whoever had it last. */
  readonly unclean: boolean;
  readonly #reserve: Reserve;
  readonly #checkpoint: Checkpoint;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #savepoint: StatementSync;
  readonly #release: StatementSync;
  readonly #rollbackTo: StatementSync;
  readonly #queue: Pending[] = [];
  readonly #listeners = new Set<(mutations: number, removals: number) => void>();
  #statements: Statements;
  #runner: CommitRunner | undefined;
  #outcomes: Outcomes | undefined;
  #scheduled: NodeJS.Immediate | undefined;
  #ended: Failure | undefined;
  #closed = false;
  #commits = 0;
  #batches = 0;

  /** Number of the newest durable commit. */
  sequence = 0;

  /** @throws Failure as {@link openDatabase}. Tables are there only after the migrations: then call {@link ready}. */
  constructor(options: EngineOptions) {
    this.#options = options;
    const { standby, ...how } = options;
    const opened = this.#busy('records open', () =>
      openDatabase(options.path, { ...how, ...(standby && { standby: standby.database }) }),
    );
    this.database = opened.database;
    this.unclean = opened.unclean;
    this.#reserve = new Reserve(`${options.path}.reserve`, options.reserve ?? 0);
    this.#reserve.take();
    this.#checkpoint = new Checkpoint(this.database);
    this.#statements = new Statements(this.database);
    this.#begin = this.database.prepare('BEGIN IMMEDIATE');
    this.#commit = this.database.prepare('COMMIT');
    this.#savepoint = this.database.prepare('SAVEPOINT one');
    this.#release = this.database.prepare('RELEASE one');
    this.#rollbackTo = this.database.prepare('ROLLBACK TO one');
  }

  /** The schema is complete, or has changed: commits can be taken. */
  ready(): void {
    this.#statements.clear();
    this.#outcomes = this.#options.standby?.outcomes ?? new Outcomes(this.database);
    this.sequence = this.#outcomes.catchUp();
    this.#runner = new CommitRunner(this.database, this.#statements);
    markMade(this.#options.path);
  }

  /** Runs a client's commit. @returns its outcome, that of the first time when its id is known. @throws Failure of its own making, Unavailable when writing has ended. */
  commit(request: CommitRequest): Promise<CommitResponse> {
    return this.#enqueue<CommitResponse>({
      key: keyOf(request.id),
      frees: () => this.#runner!.frees(request),
      run: (sequence) => {
        const response = this.#runner!.run(request, sequence);
        this.#outcomes!.write(sequence, request.id, CommitResponse.encode(response).finish());
        return response;
      },
    });
  }

  /**
   * Runs work of records itself in a commit of its own: all or nothing, and durable when it resolves.
   *
   * @param work may run twice, when the batch around it had to be rolled back. `sequence` is its number.
   */
  run<T>(work: (database: DatabaseSync, sequence: number) => T): Promise<T> {
    return this.#enqueue<T>({
      key: '',
      frees: () => true,
      run: (sequence) => {
        const result = work(this.database, sequence);
        this.#outcomes!.write(sequence, new Uint8Array(), new Uint8Array());
        return result;
      },
    });
  }

  /**
   * Called after each batch that made something durable.
   *
   * @param listener gets the number of clients' commits, and of statements in them that updated or deleted.
   * @returns how to stop it.
   */
  onBatch(listener: (mutations: number, removals: number) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when all that waits now has been answered. */
  async idle(): Promise<void> {
    while (this.#queue.length > 0) await new Promise((resolve) => setImmediate(resolve));
  }

  get stats(): { commits: number; batches: number; fsyncs: number; walBytes: number; databaseBytes: number } {
    const { checkpoints, walBytes, databaseBytes } = this.#checkpoint.stats(this.#closed);
    const syncs = this.#options.durable === false ? 0 : this.#batches + checkpoints;
    return { commits: this.#commits, batches: this.#batches, fsyncs: syncs, walBytes, databaseBytes };
  }

  /**
   * Answers what waits, empties the log and closes the file. `handOver` leaves the log to the next generation, which may have it at once: nothing is written any
   * more, and the connection is closed a moment later, since callers wait.
   */
  close(options: { handOver?: boolean } = {}): void {
    if (this.#closed) return;
    while (this.#queue.length > 0) this.#flush();
    this.#closed = true;
    this.#ended ??= new Failure('Unavailable', 'records are closed: unavailable');
    clearImmediate(this.#scheduled);
    if (options.handOver === true && this.#ended.cause === undefined) {
      setImmediate(() => this.database.close());
      return;
    }
    try {
      // After a failed write nothing is closed in good order: the next start has to look.
      if (this.#ended.cause === undefined) closeDatabase(this.#options.path, this.database);
    } finally {
      if (this.database.isOpen) this.database.close();
    }
  }

  #enqueue<T>(work: Omit<Pending, 'resolve' | 'reject'>): Promise<T> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (this.#outcomes === undefined)
      return Promise.reject(new Failure('Unavailable', 'records are not migrated yet: unavailable'));
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ ...work, resolve, reject });
      // An immediate runs after all messages of this turn were read, which is what makes a batch.
      this.#scheduled ??= setImmediate(() => this.#flush());
    });
  }

  #flush(): void {
    this.#scheduled = undefined;
    const batch = this.#queue.splice(0, maxBatch);
    if (batch.length === 0) return;
    this.#busy('records commit', () => this.#batch(batch));
    if (this.#queue.length > 0) this.#scheduled = setImmediate(() => this.#flush());
    else if (this.#ended === undefined && this.#checkpoint.due())
      setImmediate(() => {
        if (!this.#closed && this.#ended === undefined)
          this.#guard(() => this.#busy('records checkpoint', () => this.#checkpoint.run()));
      });
  }

  /** Runs all in one transaction; when that as a whole fails, each in one of its own. */
  #batch(batch: readonly Pending[], retried = false): void {
    if (this.#ended !== undefined) {
      for (const pending of batch) pending.reject(this.#ended);
      return;
    }
    if (this.#reserve.missing && !this.#reserve.take() && !retried) {
      const [small, growing] = split(batch, (pending) => pending.frees());
      for (const pending of growing) pending.reject(noSpace());
      if (small.length === 0) return;
      batch = small;
    }
    const first = this.sequence + 1;
    let next = first;
    const answers: (() => void)[] = [];
    const numbers: { key: string; sequence: number }[] = [];
    const outcomes = new Map<string, unknown>();
    try {
      failpoint('records.commit.begin');
      this.#begin.run();
      for (const pending of batch) {
        const { key } = pending;
        const before = key === '' ? undefined : (outcomes.get(key) ?? this.#known(key));
        if (before !== undefined) {
          answers.push(() => pending.resolve(before as never));
          continue;
        }
        this.#savepoint.run();
        try {
          const outcome = pending.run(next);
          failpoint('records.commit.statements');
          this.#release.run();
          if (key !== '') outcomes.set(key, outcome);
          numbers.push({ key, sequence: next });
          next += 1;
          answers.push(() => pending.resolve(outcome as never));
        } catch (error) {
          // SQLITE_FULL and I/O errors take the whole transaction with them.
          if (!this.database.isTransaction || classify(error) === 'fatal') throw error;
          this.#rollbackTo.run();
          this.#release.run();
          const failure = toFailure(error);
          answers.push(() => pending.reject(failure));
        }
      }
      this.#outcomes!.trim();
      failpoint('records.commit.fsync');
      this.#commit.run();
    } catch (error) {
      this.#failed(batch, error, retried);
      return;
    }
    this.sequence = next - 1;
    for (const { key, sequence } of numbers) this.#outcomes!.remember(key, sequence);
    this.#commits += numbers.length;
    this.#batches += 1;
    try {
      failpoint('records.commit.answer');
    } catch (error) {
      for (const pending of batch) pending.reject(toFailure(error));
      return;
    }
    for (const answer of answers) answer();
    const { mutations, removals } = this.#runner!.takeCounts();
    if (numbers.length > 0) for (const listener of this.#listeners) listener(mutations, removals);
  }

  #known(key: string): CommitResponse | undefined {
    const outcome = this.#outcomes!.find(key);
    return outcome === undefined ? undefined : CommitResponse.decode(outcome);
  }

  /** The transaction is not there; nothing of the batch has happened. */
  #failed(batch: readonly Pending[], error: unknown, retried: boolean): void {
    const kind = classify(error);
    if (kind === 'fatal') {
      this.#end(error);
      for (const pending of batch) pending.reject(this.#ended!);
      return;
    }
    if (!this.#guard(() => this.database.isTransaction && this.database.exec('ROLLBACK'))) {
      for (const pending of batch) pending.reject(this.#ended!);
      return;
    }
    const [pending, another] = batch;
    if (kind === 'locked') {
      // Each alone would wait as long again.
      const failure = toFailure(error);
      for (const one of batch) one.reject(failure);
      return;
    }
    if (another !== undefined) {
      for (const one of batch) this.#batch([one]);
      return;
    }
    if (kind !== 'full') pending!.reject(toFailure(error));
    else if (!retried && pending!.frees()) {
      // With the reserve's room the log can be emptied into the database, and start over at its beginning.
      this.#reserve.release();
      if (this.#guard(() => this.#checkpoint.run())) this.#batch(batch, true);
      else pending!.reject(this.#ended!);
    } else pending!.reject(noSpace(error));
  }

  /** False when it ended writing. */
  #guard(work: () => unknown): boolean {
    try {
      work();
      return true;
    } catch (error) {
      if (classify(error) === 'full') return true;
      this.#end(error);
      return false;
    }
  }

  #end(error: unknown): void {
    const failure = new Failure('Unavailable', `records: writing has ended: ${(error as Error).message}: unavailable`, {
      cause: error,
    });
    this.#ended = failure;
    for (const pending of this.#queue.splice(0)) pending.reject(failure);
    this.#options.onEnd?.(failure);
  }

  #busy<T>(what: string, work: () => T): T {
    return this.#options.busy === undefined ? work() : this.#options.busy(what, busyLimitMs, work);
  }
}

function split<T>(items: readonly T[], test: (item: T) => boolean): [T[], T[]] {
  const yes: T[] = [];
  const no: T[] = [];
  for (const item of items) (test(item) ? yes : no).push(item);
  return [yes, no];
}
