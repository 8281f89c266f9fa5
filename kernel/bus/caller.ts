/** The calling end of a link: open calls and what has come back for them. */
import { Failure, type FailureCode, failureCodes } from '../sdk/failure.ts';
import { type CallMeta, callFlag, type Frame, frameKind, type Priority, priority } from './frames.ts';
import { HeaderNumbers, keptHeaders } from './kept-headers.ts';
import { creditStep, keepsHeaders, LinkEnd, streamWindow } from './link.ts';
import { OpenCalls } from './open-calls.ts';

/** Who waits for a call. Exactly one of end, fail, undispatched and moved is the last thing it hears. */
export interface CallSink {
  message(payload: Uint8Array): void;
  end(): void;
  /** `died`: the callee's generation ended while it worked on the call, so what it did is unknown. */
  fail(failure: Failure, died: boolean): void;
  /** The call never ran: the generation died before, or takes no more calls. */
  undispatched(): void;
  /** The stream goes on with the next generation, from the last cursor. */
  moved(): void;
  cursor(value: string): void;
  /** Credit has come back after it had run out. */
  writable(): void;
}

export interface OpenCall {
  /** False when the window is used up: the message has been taken, but wait for `writable` before the next. */
  send(payload: Uint8Array): boolean;
  end(): void;
  cancel(): void;
  /** So many bytes of what came have been consumed. */
  consumed(bytes: number): void;
  /** The callee has begun to work on it (or had, when it died). */
  readonly dispatched: boolean;
}

export class CallerLink extends LinkEnd {
  readonly #pending = new OpenCalls<Pending>();
  readonly #kept = [new HeaderNumbers(), new HeaderNumbers(), new HeaderNumbers()] as const;
  #nextId = 1;

  /** Calls that have neither ended nor been cancelled. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Sinks of the calls that nobody has begun. */
  get undispatched(): CallSink[] {
    return this.#pending
      .values()
      .filter((call) => !call.dispatched)
      .map(({ sink }) => sink);
  }

  open(
    method: string,
    meta: CallMeta,
    payload: Uint8Array | undefined,
    options: { complete: boolean; single: boolean; priority: Priority },
    sink: CallSink,
  ): OpenCall {
    const id = this.#nextId++;
    const flags =
      (options.complete ? callFlag.complete : 0) |
      (payload === undefined ? 0 : callFlag.message) |
      (options.single ? callFlag.single : 0);
    const pending = new Pending(id, options.priority, sink, this.#wire);
    this.#pending.add(pending);
    this.post(this.#header(id, method, flags, meta, options.priority), payload, options.priority);
    if (payload !== undefined && !options.complete) pending.window -= payload.byteLength;
    return pending;
  }

  #header(id: number, method: string, flags: number, meta: CallMeta, at: Priority): readonly unknown[] {
    const { from, namespace, lease, deadline, trace, cursor } = meta;
    let kept = -1;
    // A page from before there was a fourth number has none.
    if (trace === '' && cursor === '' && (this.dispatched[keepsHeaders] ?? 0) >= keptHeaders) {
      kept = this.#kept[at].find(method, flags, meta);
      if (kept >= 0) return [frameKind.repeat, id, kept, deadline];
      kept = this.#kept[at].keep(method, flags, meta);
    }
    return [frameKind.call, id, method, flags, from, namespace, lease, deadline, trace, cursor, kept];
  }

  readonly #wire: Wire = {
    post: (header, payload, at) => this.post(header, payload, at),
    forget: (id) => this.#pending.delete(id),
    dispatched: (call) => call.id <= Atomics.load(this.dispatched, call.priority),
  };

  protected frame(frame: Frame): void {
    const call = this.#pending.get(frame.id);
    // Answers to a cancelled call cross its cancel on the way; they are nobody's.
    if (call === undefined) return;
    const { header, payload } = frame;
    switch (frame.kind) {
      case frameKind.reply:
        this.#pending.delete(frame.id);
        call.sink.message(payload ?? new Uint8Array());
        call.sink.end();
        return;
      case frameKind.chunk:
        call.sink.message(payload ?? new Uint8Array());
        return;
      case frameKind.end:
        this.#pending.delete(frame.id);
        call.sink.end();
        return;
      case frameKind.fail:
        this.#pending.delete(frame.id);
        call.sink.fail(failureOf(header), false);
        return;
      case frameKind.credit: {
        const wasDry = call.window <= 0;
        call.window += Number(header[2]);
        if (wasDry && call.window > 0) call.sink.writable();
        return;
      }
      case frameKind.cursor:
        call.sink.cursor(String(header[2]));
        return;
      case frameKind.refuse:
        this.#pending.delete(frame.id);
        call.sink.undispatched();
        return;
      case frameKind.moved:
        this.#pending.delete(frame.id);
        call.sink.moved();
        return;
      default:
        this.malformed(new RangeError(`frame of kind ${frame.kind} from a callee`));
    }
  }

  protected ended(): void {
    const calls = this.#pending.values();
    this.#pending.clear();
    for (const call of calls) {
      if (call.dispatched) call.sink.fail(new Failure('Unavailable', `plugin ${this.peer} died: unavailable`), true);
      else call.sink.undispatched();
    }
  }
}

interface Wire {
  post(header: readonly unknown[], payload: Uint8Array | undefined, priority: Priority): void;
  forget(id: number): void;
  dispatched(call: Pending): boolean;
}

class Pending implements OpenCall {
  readonly id: number;
  readonly priority: Priority;
  readonly sink: CallSink;
  window = streamWindow;
  #owed = 0;
  readonly #wire: Wire;

  constructor(id: number, at: Priority, sink: CallSink, wire: Wire) {
    this.id = id;
    this.priority = at;
    this.sink = sink;
    this.#wire = wire;
  }

  get dispatched(): boolean {
    return this.#wire.dispatched(this);
  }

  send(payload: Uint8Array): boolean {
    this.window -= payload.byteLength;
    this.#wire.post([frameKind.chunk, this.id], payload, this.priority);
    return this.window > 0;
  }

  end(): void {
    this.#wire.post([frameKind.end, this.id], undefined, this.priority);
  }

  cancel(): void {
    this.#wire.forget(this.id);
    this.#wire.post([frameKind.cancel, this.id], undefined, priority.control);
  }

  consumed(bytes: number): void {
    this.#owed += bytes;
    if (this.#owed < creditStep) return;
    this.#wire.post([frameKind.credit, this.id, this.#owed], undefined, priority.control);
    this.#owed = 0;
  }
}

function failureOf(header: readonly unknown[]): Failure {
  const code = String(header[2]);
  const details = header[4] instanceof Uint8Array ? { details: header[4] } : {};
  return new Failure(code in failureCodes ? (code as FailureCode) : 'Unknown', String(header[3]), details);
}
