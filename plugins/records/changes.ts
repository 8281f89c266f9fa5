/**
 * Tells who publishes events and removes trash that there is more: wakes them, and carries no data.
 *
 * It outlives the file's being open: a reader waits through a reload, and is moved to the next generation or woken by this one again.
 */
import type { StatementSync } from 'node:sqlite';
import type { Engine } from './engine.ts';

export class Changes {
  readonly #waiting = new Set<() => void>();
  #engine: Engine | undefined;
  #newest: StatementSync | undefined;
  #unsubscribe: (() => void) | undefined;
  #mark = '';
  #closed = false;

  /** Follows what this engine commits, and wakes everybody: nobody knows what was committed before. */
  attach(engine: Engine): void {
    this.#engine = engine;
    // AUTOINCREMENT keeps the highest number ever used there: rows that were written and removed since still count.
    this.#newest = engine.database.prepare(
      "SELECT group_concat(name || seq) AS mark FROM sqlite_sequence WHERE name IN ('records_outbox', 'records_trash')",
    );
    this.#mark = this.#read();
    this.#unsubscribe = engine.onBatch(() => this.#look());
    this.#wake();
  }

  detach(): void {
    this.#unsubscribe?.();
    this.#newest = undefined;
  }

  /**
   * Yields the number of the newest durable commit: at once, so that nothing from before is missed, and then after batches with events or
   * trash; once for many while the reader is slow. Ends when the signal aborts or the feed closes.
   */
  async *follow(signal: AbortSignal): AsyncGenerator<bigint> {
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
          yield BigInt(this.#engine?.sequence ?? 0);
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
    this.detach();
    this.#closed = true;
    this.#wake();
  }

  #look(): void {
    const mark = this.#read();
    if (mark === this.#mark) return;
    this.#mark = mark;
    this.#wake();
  }

  #read(): string {
    return (this.#newest?.get() as { mark: string | null } | undefined)?.mark ?? '';
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }
}
