/** The serving end of a link: calls that have come in and what is owed to them. */
import { release } from '../../proto/owned.ts';
import type { Failure } from '../sdk/failure.ts';
import { type CallMeta, callFlag, type Frame, frameKind, type Port, type Priority, priority } from './frames.ts';
import { type KeptHeader, keptHeaders } from './kept-headers.ts';
import { creditStep, keepsHeaders, LinkEnd, streamWindow } from './link.ts';
import { OpenCalls } from './open-calls.ts';
import type { Scheduler } from './scheduler.ts';

/** What the server of a call hears about it after it has been handed over. */
export interface IncomingSink {
  message(payload: Uint8Array): void;
  end(): void;
  /** The caller has gone, or does not wait any more. The last thing it hears. */
  cancelled(): void;
  writable(): void;
}

export class CalleeLink extends LinkEnd {
  readonly #calls = new OpenCalls<IncomingCall>();
  /** Cancels that came before their call (control overtakes). Ids grow, so one below the newest call seen is of the past. */
  readonly #cancelledEarly = new Set<number>();
  /** By priority and number. */
  readonly #kept: readonly [KeptHeader[], KeptHeader[], KeptHeader[]] = [[], [], []];
  readonly #serve: (call: IncomingCall) => void;
  readonly #gone: () => void;
  #newest = 0;

  constructor(
    peer: string,
    port: Port,
    page: SharedArrayBuffer,
    scheduler: Scheduler,
    serve: (call: IncomingCall) => void,
    gone: () => void = () => {},
  ) {
    super(peer, port, page, scheduler);
    this.#serve = serve;
    this.#gone = gone;
    // A kernel of a build from before made a page without it.
    if (this.dispatched.length > keepsHeaders) Atomics.store(this.dispatched, keepsHeaders, keptHeaders);
  }

  /** Calls under way. */
  get running(): number {
    return this.#calls.size;
  }

  readonly #wire: CalleeWire = {
    post: (header, payload, at) => this.post(header, payload, at),
    forget: (id) => this.#calls.delete(id),
    note: (call) => Atomics.store(this.dispatched, call.priority, call.id),
  };

  protected frame(frame: Frame, at: Priority): void {
    const { header, id, payload } = frame;
    if (frame.kind === frameKind.repeat) {
      const kept = this.#kept[at][Number(header[2])];
      if (kept === undefined)
        this.malformed(new RangeError(`call with the header ${String(header[2])}, which was never sent`));
      else this.#begin(id, at, kept, Number(header[3]), '', '', payload);
      return;
    }
    if (frame.kind === frameKind.call) {
      const fresh = headerOf(header);
      const number = Number(header[10]);
      if (Number.isInteger(number) && number >= 0 && number < keptHeaders) this.#kept[at][number] = fresh;
      this.#begin(id, at, fresh, Number(header[7]), String(header[8]), String(header[9]), payload);
      return;
    }
    const call = this.#calls.get(id);
    if (call === undefined) {
      if (frame.kind === frameKind.cancel && id > this.#newest) this.#cancelledEarly.add(id);
      return;
    }
    switch (frame.kind) {
      case frameKind.chunk:
        call.sink?.message(payload ?? new Uint8Array());
        return;
      case frameKind.end:
        call.sink?.end();
        return;
      case frameKind.cancel:
        this.#calls.delete(id);
        call.abandon();
        call.sink?.cancelled();
        return;
      case frameKind.credit: {
        const wasDry = call.window <= 0;
        call.window += Number(header[2]);
        if (wasDry && call.window > 0) call.sink?.writable();
        return;
      }
      default:
        this.malformed(new RangeError(`frame of kind ${frame.kind} from a caller`));
    }
  }

  #begin(
    id: number,
    at: Priority,
    { method, flags, from, namespace, lease }: KeptHeader,
    deadline: number,
    trace: string,
    cursor: string,
    payload: Uint8Array | undefined,
  ): void {
    this.#newest = Math.max(this.#newest, id);
    if (this.#cancelledEarly.delete(id)) return;
    const call = new IncomingCall(id, at, method, { from, namespace, lease, deadline, trace, cursor }, this.#wire);
    call.complete = (flags & callFlag.complete) !== 0;
    call.single = (flags & callFlag.single) !== 0;
    if ((flags & callFlag.message) !== 0) call.first = payload ?? new Uint8Array();
    this.#calls.add(call);
    this.#serve(call);
  }

  protected ended(): void {
    const calls = this.#calls.values();
    this.#calls.clear();
    for (const call of calls) call.sink?.cancelled();
    this.#gone();
  }
}

interface CalleeWire {
  post(header: readonly unknown[], payload: Uint8Array | undefined, priority: Priority): void;
  forget(id: number): void;
  note(call: IncomingCall): void;
}

/** One call as the serving runtime holds it. Exactly one of reply, end, fail, refuse and moved ends it. */
export class IncomingCall {
  readonly id: number;
  readonly priority: Priority;
  readonly method: string;
  readonly meta: CallMeta;
  /** The request is `first` and nothing more. */
  complete = false;
  single = false;
  first: Uint8Array | undefined;
  sink: IncomingSink | undefined;
  window = streamWindow;
  #owed = 0;
  #abandoned = false;
  readonly #wire: CalleeWire;

  constructor(id: number, at: Priority, method: string, meta: CallMeta, wire: CalleeWire) {
    this.id = id;
    this.priority = at;
    this.method = method;
    this.meta = meta;
    this.#wire = wire;
  }

  /** The caller does not wait any more: whatever is said of it from here on would wake a thread for nothing. */
  abandon(): void {
    this.#abandoned = true;
  }

  /** Notes that it runs from here on; before any of the plugin's code. */
  dispatch(): void {
    this.#wire.note(this);
  }

  #post(header: readonly unknown[], payload: Uint8Array | undefined, at: Priority): void {
    if (!this.#abandoned) this.#wire.post(header, payload, at);
  }

  reply(payload: Uint8Array): void {
    this.#wire.forget(this.id);
    this.#post([frameKind.reply, this.id], payload, this.priority);
  }

  /** Takes the memory of the payload over. False when the window is used up: the message has been taken, but wait for `writable` before the next. */
  send(payload: Uint8Array): boolean {
    this.window -= payload.byteLength;
    this.#post([frameKind.chunk, this.id], payload, this.priority);
    release(payload);
    return this.window > 0;
  }

  end(): void {
    this.#wire.forget(this.id);
    this.#post([frameKind.end, this.id], undefined, this.priority);
  }

  fail(failure: Failure): void {
    this.#wire.forget(this.id);
    this.#post(
      [frameKind.fail, this.id, failure.code, failure.message, failure.details ?? null],
      undefined,
      this.priority,
    );
  }

  refuse(): void {
    this.#wire.forget(this.id);
    this.#post([frameKind.refuse, this.id], undefined, this.priority);
  }

  moved(): void {
    this.#wire.forget(this.id);
    this.#post([frameKind.moved, this.id], undefined, this.priority);
  }

  cursor(value: string): void {
    this.#post([frameKind.cursor, this.id, value], undefined, this.priority);
  }

  consumed(bytes: number): void {
    this.#owed += bytes;
    if (this.#owed < creditStep) return;
    this.#post([frameKind.credit, this.id, this.#owed], undefined, priority.control);
    this.#owed = 0;
  }
}

function headerOf(header: readonly unknown[]): KeptHeader {
  return {
    method: String(header[2]),
    flags: Number(header[3]),
    from: String(header[4]),
    namespace: String(header[5]),
    lease: String(header[6]),
  };
}
