/**
 * What a generation that is to take the file over has ready before it does: a connection, and what is on disk up to then. Only reads. Callers wait from the moment
 * in which the old generation lets go, and reading the ids of the last commits alone would have them wait for tens of milliseconds.
 */
import type { DatabaseSync } from 'node:sqlite';
import { openStandby } from './database.ts';
import { type MigrationFolder, pendingMigrations } from './migrate.ts';
import { Outcomes } from './outcomes.ts';

export interface StandbyOptions {
  readonly path: string;
  readonly durable: boolean;
  readonly migrations: readonly MigrationFolder[];
}

export class Standby {
  readonly database: DatabaseSync;
  readonly outcomes: Outcomes;

  /** Undefined when nobody has the file open, or its schema is not the one that is wanted. @throws Failure when it cannot be opened */
  static open({ path, durable, migrations }: StandbyOptions): Standby | undefined {
    const database = openStandby(path, { durable });
    if (database === undefined) return undefined;
    try {
      if (pendingMigrations(database, migrations).length === 0) return new Standby(database);
    } catch (error) {
      database.close();
      throw error;
    }
    database.close();
    return undefined;
  }

  private constructor(database: DatabaseSync) {
    this.database = database;
    this.outcomes = new Outcomes(database);
    this.outcomes.catchUp();
  }

  close(): void {
    if (this.database.isOpen) this.database.close();
  }
}
