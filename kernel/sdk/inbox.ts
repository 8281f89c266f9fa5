/**
 * Messages that have come and not been taken: the pull side of a stream. Its bound is the stream's credit, which goes back to the sender
 * only when the consumer asks for the message after.
 */
import type { Failure } from './failure.ts';

export class Inbox<T> implements AsyncIterableIterator<T> {
  #queue: { value: T; bytes: number }[] = [];
  #waiter: { resolve(result: IteratorResult<T>): void; reject(error: unknown): void } | undefined;
  #end: { failure: Failure | undefined } | undefined;
  #owed = 0;
  readonly #consumed: (bytes: number) => void;
  readonly #abandoned: () => void;

  /** `consumed` gives credit back; `abandoned` is called when the consumer leaves before the end. */
  constructor(consumed: (bytes: number) => void, abandoned: () => void) {
    this.#consumed = consumed;
    this.#abandoned = abandoned;
  }

  push(value: T, bytes: number): void {
    if (this.#end !== undefined) return;
    if (this.#waiter !== undefined) {
      const { resolve } = this.#waiter;
      this.#waiter = undefined;
      this.#owed = bytes;
      resolve({ done: false, value });
      return;
    }
    this.#queue.push({ value, bytes });
  }

  finish(failure?: Failure): void {
    if (this.#end !== undefined) return;
    this.#end = { failure };
    // What came before a failure is still delivered, as gRPC does; only then does the consumer hear of it.
    if (this.#waiter !== undefined) {
      const { resolve, reject } = this.#waiter;
      this.#waiter = undefined;
      if (failure === undefined) resolve({ done: true, value: undefined });
      else reject(failure);
    }
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#owed > 0) {
      this.#consumed(this.#owed);
      this.#owed = 0;
    }
    const head = this.#queue.shift();
    if (head !== undefined) {
      this.#owed = head.bytes;
      return Promise.resolve({ done: false, value: head.value });
    }
    if (this.#end !== undefined) {
      const { failure } = this.#end;
      this.#end = { failure: undefined };
      return failure === undefined ? Promise.resolve({ done: true, value: undefined }) : Promise.reject(failure);
    }
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<T>> {
    if (this.#end === undefined) {
      this.#end = { failure: undefined };
      this.#queue = [];
      this.#waiter?.resolve({ done: true, value: undefined });
      this.#waiter = undefined;
      this.#abandoned();
    }
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
