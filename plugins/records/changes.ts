/** Tells who publishes events and removes trash that there is more: wakes them, and carries no data. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

export class Changes {
  readonly #newest: StatementSync;
  readonly #waiting = new Set<() => void>();
  #mark = '';
  #closed = false;

  constructor(database: DatabaseSync) {
    // AUTOINCREMENT keeps the highest number ever used there: rows that were written and removed since still count.
    this.#newest = database.prepare(
      "SELECT group_concat(name || seq) AS mark FROM sqlite_sequence WHERE name IN ('records_outbox', 'records_trash')",
    );
  }

  /** After each batch. */
  look(): void {
    const { mark } = this.#newest.get() as { mark: string | null };
    if ((mark ?? '') === this.#mark) return;
    this.#mark = mark ?? '';
    this.#wake();
  }

  /**
   * Yields at once, so that nothing from before is missed, and then after batches with events or trash; once for many while the
   * reader is slow. Ends when the signal aborts or the feed closes.
   */
  async *follow(signal: AbortSignal): AsyncGenerator<void> {
    let woken = true;
    let resume: (() => void) | undefined;
    const wake = () => {
      woken = true;
      resume?.();
    };
    this.#waiting.add(wake);
    signal.addEventListener('abort', wake);
    try {
      while (!signal.aborted && !this.#closed) {
        if (woken) {
          woken = false;
          yield;
          continue;
        }
        await new Promise<void>((resolve) => {
          resume = resolve;
        });
      }
    } finally {
      this.#waiting.delete(wake);
      signal.removeEventListener('abort', wake);
    }
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}
