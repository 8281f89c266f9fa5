/**
 * Events of records: they became durable in the same commit as what they tell of, and are published from here, in the order of the commits.
 *
 *   records_outbox   seq · ns · topic · type_url · value · at (ns since the epoch)        (records'; only this plugin deletes from it)
 *
 * What was published is deleted later, many rows at once: a deletion is a durable write like any other. Rows that a crash leaves behind are
 * published again by the next start.
 */
import { failpoint, type Log, type Records } from 'troupe/plugin';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Event } from './envelope.ts';

interface OutboxRow {
  readonly seq: number;
  readonly ns: string;
  readonly topic: string;
  readonly type_url: string;
  readonly value: Uint8Array;
  readonly at: number | bigint;
}

const PAGE = 256;
/**
 * From the first row published to the deletion of all that were published since. Far longer than a reload holds the plugin: what a new generation
 * published before it failed must still be there for the old one.
 */
const TRIM_MS = 2000;

export class Outbox {
  readonly #records: Records;
  readonly #log: Log;
  readonly #publish: (event: Event) => void;
  #published: number;
  #trimmed = 0;
  #timer: NodeJS.Timeout | undefined;
  #trimming: Promise<void> = Promise.resolve();

  /** `published`: the newest row that the generation before published. */
  constructor(records: Records, log: Log, publish: (event: Event) => void, published = 0) {
    this.#records = records;
    this.#log = log;
    this.#publish = publish;
    this.#published = published;
  }

  get published(): number {
    return this.#published;
  }

  /** Publishes everything that is committed by now. */
  drain(): void {
    for (;;) {
      // Whole pages, never an open iterator: publishing runs other code.
      const rows = this.#records.all<OutboxRow>(
        'SELECT seq, ns, topic, type_url, value, at FROM records_outbox WHERE seq > ? ORDER BY seq LIMIT ?',
        this.#published,
        PAGE,
      );
      for (const row of rows) {
        failpoint('events.outbox.publish');
        this.#publish({
          timestamp: fromNanoseconds(BigInt(row.at)),
          namespace: row.ns,
          topic: row.topic,
          event: { typeUrl: row.type_url, value: row.value },
        });
        this.#published = row.seq;
      }
      if (rows.length < PAGE) break;
    }
    if (this.#published === this.#trimmed) return;
    this.#timer ??= setTimeout(() => void this.trim(), TRIM_MS).unref();
  }

  /** Deletes what has been published. Never rejects: what is left is deleted with the next. */
  trim(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#trimming = this.#trimming.then(async () => {
      const upTo = this.#published;
      if (upTo === this.#trimmed) return;
      failpoint('events.outbox.trim');
      try {
        await this.#records.commit({
          statements: [{ sql: 'DELETE FROM records_outbox WHERE seq <= ?', params: [upTo] }],
        });
        this.#trimmed = upTo;
      } catch (error) {
        this.#log.warn('published events stay in the outbox for now', { upTo, error: String(error) });
      }
    });
    return this.#trimming;
  }
}
