/**
 * Finds a commit by its random id, so that asking again returns what the first time did.
 *
 *     records_commit   sequence → id, outcome     on disk, in the commit's own transaction; appended, the oldest trimmed
 *     #newer, #older   id → sequence              in memory: an index on random ids would cost every commit more than its own row
 *
 * Two halves instead of one list: when the newer is full it becomes the older, and what the older held is forgotten, with its rows.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

/**
 * A commit can be asked for again until so many came after it. Whoever lost an answer asks at once, and no more calls than that run at a time; reading them is what a
 * reload took longest for.
 */
const half = 4096;

export class Outcomes {
  #newer = new Map<string, number>();
  #older = new Map<string, number>();
  readonly #newest: StatementSync;
  readonly #insert: StatementSync;
  readonly #read: StatementSync;
  readonly #trim: StatementSync;
  /** Rows up to this sequence may go. */
  #trimTo = 0;

  /** Newest that was read or written; 0: none. */
  #sequence = 0;

  constructor(database: DatabaseSync) {
    // In one text: an object and a buffer for each of 32,768 rows took 150 ms (this: 45), and more beside a daemon at work.
    this.#newest = database.prepare(
      `SELECT group_concat(sequence, ' ') AS sequences, group_concat(lower(hex(id)), ' ') AS ids
        FROM (SELECT sequence, id FROM records_commit WHERE sequence > ? ORDER BY sequence)`,
    );
    this.#insert = database.prepare('INSERT INTO records_commit (sequence, id, outcome) VALUES (?, ?, ?)');
    this.#read = database.prepare('SELECT outcome FROM records_commit WHERE sequence = ?');
    this.#trim = database.prepare('DELETE FROM records_commit WHERE sequence <= ?');
  }

  /** Reads the ids on disk that are newer than those it knows. @returns the newest sequence, 0 when there is none */
  catchUp(): number {
    const { sequences, ids } = this.#newest.get(this.#sequence) as { sequences: string | null; ids: string | null };
    if (sequences === null || ids === null) return this.#sequence;
    const keys = ids.split(' ');
    for (const [at, sequence] of sequences.split(' ').entries()) this.remember(keys[at]!, Number(sequence));
    return this.#sequence;
  }

  /** The outcome's bytes; undefined for an id that was not seen. */
  find(key: string): Uint8Array | undefined {
    const sequence = this.#newer.get(key) ?? this.#older.get(key);
    if (sequence === undefined) return undefined;
    return (this.#read.get(sequence) as { outcome: Uint8Array } | undefined)?.outcome;
  }

  /** Writes the row; {@link remember} follows when it is durable. */
  write(sequence: number, id: Uint8Array, outcome: Uint8Array): void {
    this.#insert.run(sequence, id, outcome);
  }

  /** @param key see {@link keyOf}; empty when it cannot be asked for again. */
  remember(key: string, sequence: number): void {
    if (this.#newer.size >= half) {
      let oldest = 0;
      for (const forgotten of this.#older.values()) oldest = Math.max(oldest, forgotten);
      this.#trimTo = oldest;
      this.#older = this.#newer;
      this.#newer = new Map();
    }
    this.#sequence = sequence;
    // Without an id its row is to be trimmed all the same.
    this.#newer.set(key || `${sequence}`, sequence);
  }

  /** Deletes the rows of what was forgotten, in the open transaction. */
  trim(): void {
    if (this.#trimTo === 0) return;
    this.#trim.run(this.#trimTo);
    this.#trimTo = 0;
  }
}

/** A commit's id as the key of a map; empty for none. */
export function keyOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('hex');
}
