/** A call as a plugin's handler sees it: the header's fields, and an abort that costs nothing until somebody asks for it. */
import type { IncomingCall } from '../bus/callee.ts';
import type { Deadlines, Expiring } from '../bus/deadlines.ts';
import { Failure } from './failure.ts';
import type { Call } from './plugin.ts';

export class ServerCall implements Call, Expiring {
  readonly from: string;
  readonly method: string;
  readonly namespace: string;
  readonly lease: string;
  readonly deadline: number;
  readonly trace: string;
  readonly resume: string;
  /** @internal Among the calls of its dispatcher. */
  readonly id: number;
  /** @internal */
  readonly incoming: IncomingCall;
  /** @internal */
  due = -1;
  /** @internal */
  place = 0;
  readonly #deadlines: Deadlines;
  #controller: AbortController | undefined;
  #listeners: Set<(reason: Failure) => void> | undefined;
  #aborted: Failure | undefined;

  constructor(id: number, incoming: IncomingCall, deadlines: Deadlines) {
    this.id = id;
    const { meta } = incoming;
    this.from = meta.from;
    this.method = incoming.method;
    this.namespace = meta.namespace;
    this.lease = meta.lease;
    this.deadline = meta.deadline;
    this.trace = meta.trace;
    this.resume = meta.cursor;
    this.incoming = incoming;
    this.#deadlines = deadlines;
    if (this.deadline !== 0) deadlines.add(this, this.deadline);
  }

  get aborted(): Failure | undefined {
    return this.#aborted;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  cursor(value: string): void {
    this.incoming.cursor(value);
  }

  /** For the runtime: as `signal`, without making one. Returns what takes the listener off. */
  onAbort(listener: (reason: Failure) => void): () => void {
    if (this.#aborted !== undefined) {
      listener(this.#aborted);
      return () => {};
    }
    this.#listeners ??= new Set();
    this.#listeners.add(listener);
    return () => this.#listeners?.delete(listener);
  }

  expire(): void {
    this.abort(new Failure('DeadlineExceeded', `${this.method}: context deadline exceeded`));
  }

  abort(reason: Failure): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = reason;
    this.#controller?.abort(reason);
    for (const listener of this.#listeners ?? []) listener(reason);
    this.#listeners = undefined;
  }

  /** The call has been answered: its deadline is nobody's business any more. */
  settle(): void {
    this.#deadlines.delete(this);
    this.#listeners = undefined;
  }
}
