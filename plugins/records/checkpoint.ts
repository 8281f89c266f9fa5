/**
 * Moves committed pages from the log into the database, after the answers of a batch went out and not before them as SQLite's own
 * checkpoint would: nobody waits for it, and the log is started over when all of it has been moved.
 */
import { statSync } from 'node:fs';
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { failpoint } from 'troupe/plugin';

/** Pages in the log that are not in the database yet, 4 KiB each. */
const threshold = 1000;

interface LogState {
  busy: number;
  log: number;
  checkpointed: number;
}

export class Checkpoint {
  readonly #path: string;
  readonly #state: StatementSync;
  readonly #passive: StatementSync;
  #count = 0;

  constructor(database: DatabaseSync) {
    this.#path = database.location()!;
    this.#state = database.prepare('PRAGMA wal_checkpoint(NOOP)');
    this.#passive = database.prepare('PRAGMA wal_checkpoint(PASSIVE)');
  }

  due(): boolean {
    const { log, checkpointed } = this.#state.get() as unknown as LogState;
    return log - checkpointed >= threshold;
  }

  /** Passive: waits for nobody. A reader in the middle of an old snapshot leaves a rest for the next time. */
  run(): void {
    failpoint('records.checkpoint.begin');
    this.#count += 1;
    this.#passive.get();
    failpoint('records.checkpoint.end');
  }

  stats(closed: boolean): { checkpoints: number; walBytes: number; databaseBytes: number } {
    const size = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    return {
      checkpoints: this.#count,
      walBytes: closed ? 0 : size(`${this.#path}-wal`),
      databaseBytes: size(this.#path),
    };
  }
}
