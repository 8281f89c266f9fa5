/**
 * Messages from a writer to a reader, with room for two: who writes faster waits, and so does, by the credit of its own stream, whoever sends to it. Two
 * and not one, so that the reader has something to do while the writer is told that there is room.
 */
import type { Failure } from 'troupe/plugin';

const room = 2;

export class Pipe<T> implements AsyncIterable<T> {
  readonly #queue: T[] = [];
  #ended: { readonly reason: Failure | undefined } | undefined;
  #readable: (() => void) | undefined;
  #writable: (() => void) | undefined;
  readonly #closed = Promise.withResolvers<void>();

  /** Resolves when it has been ended, by whichever side. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Resolves when there is room for more: true when the reader is still there. */
  async write(message: T): Promise<boolean> {
    if (this.#ended !== undefined) return false;
    this.#queue.push(message);
    this.#wakeReader();
    while (this.#queue.length >= room && this.#ended === undefined) {
      await new Promise<void>((resolve) => {
        this.#writable = resolve;
      });
    }
    return this.#ended === undefined;
  }

  /** What was written before is still read, then the reason is thrown if there is one. The first end counts. */
  end(reason?: Failure): void {
    this.#ended ??= { reason };
    this.#closed.resolve();
    this.#wakeReader();
    this.#wakeWriter();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      for (;;) {
        const head = this.#queue.shift();
        if (head !== undefined) {
          this.#wakeWriter();
          yield head;
          continue;
        }
        if (this.#ended?.reason !== undefined) throw this.#ended.reason;
        if (this.#ended !== undefined) return;
        await new Promise<void>((resolve) => {
          this.#readable = resolve;
        });
      }
    } finally {
      this.#queue.length = 0;
      this.end();
    }
  }

  #wakeReader(): void {
    const wake = this.#readable;
    this.#readable = undefined;
    wake?.();
  }

  #wakeWriter(): void {
    const wake = this.#writable;
    this.#writable = undefined;
    wake?.();
  }
}
