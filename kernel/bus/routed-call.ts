/**
 * One call from its caller's view, whichever generations it passes through: it stands in line while its slot has no link, survives the death of a generation that
 * had not begun on it, and moves with a reload when its stream says `migrate`. A call that was dispatched to a generation that died is sent once more only when
 * its method is declared idempotent.
 */
import { release } from '../../proto/owned.ts';
import { Failure } from '../sdk/failure.ts';
import type { CallerLink, CallSink, OpenCall } from './caller.ts';
import type { Deadlines, Expiring } from './deadlines.ts';
import type { CallMeta } from './frames.ts';
import { streamWindow } from './link.ts';
import type { MethodPolicy } from './routes.ts';
import type { Slot, Waiting } from './slot.ts';

export interface RouteRequest {
  readonly meta: CallMeta;
  readonly payload: Uint8Array | undefined;
  /** The payload is the whole request. */
  readonly complete: boolean;
  readonly single: boolean;
}

/** What the caller of a routed call hears; `end` or `fail` is the last. */
export interface RouteSink {
  message(payload: Uint8Array): void;
  end(): void;
  fail(failure: Failure): void;
  writable(): void;
}

export class RoutedCall implements CallSink, Expiring, Waiting {
  readonly number: number;
  readonly #slot: Slot;
  readonly #deadlines: Deadlines;
  readonly #method: string;
  readonly #request: RouteRequest;
  readonly #meta: CallMeta;
  readonly #policy: MethodPolicy;
  readonly #sink: RouteSink;
  /** @internal */
  due = -1;
  /** @internal */
  place = 0;
  #open: OpenCall | undefined;
  #link: CallerLink | undefined;
  #done = false;
  #ended = false;
  #resent = false;
  #cursor = '';
  /** Chunks that were sent before anything proved that the callee has begun: at most one window of them. */
  #unproven: Uint8Array[] | undefined;
  #writable = true;

  constructor(
    slot: Slot,
    number: number,
    deadlines: Deadlines,
    method: string,
    request: RouteRequest,
    policy: MethodPolicy,
    sink: RouteSink,
  ) {
    this.#slot = slot;
    this.number = number;
    this.#deadlines = deadlines;
    this.#method = method;
    this.#policy = policy;
    this.#sink = sink;
    this.#request = request;
    const { meta } = request;
    const bounded = meta.deadline === 0 && !policy.unbounded && request.complete && request.single;
    this.#meta = bounded ? { ...meta, deadline: Date.now() + policy.deadlineMs } : meta;
    this.#unproven = request.complete ? undefined : [];
    if (this.#meta.deadline !== 0) deadlines.add(this, this.#meta.deadline);
  }

  get begun(): boolean {
    return this.#open?.dispatched ?? false;
  }

  get bytes(): number {
    return this.#request.payload?.byteLength ?? 0;
  }

  /** Sends it, or puts it in line. */
  begin(): void {
    if (this.#done) return;
    try {
      const link = this.#slot.admit(this);
      if (link !== undefined) this.#dispatch(link);
    } catch (error) {
      this.give(Failure.from(error));
    }
  }

  #dispatch(link: CallerLink): void {
    this.#link = link;
    const meta = this.#cursor === '' ? this.#meta : { ...this.#meta, cursor: this.#cursor };
    this.#open = link.open(
      this.#method,
      meta,
      this.#request.payload,
      { complete: this.#request.complete, single: this.#request.single, priority: this.#policy.priority },
      this,
    );
    let writable = true;
    for (const chunk of this.#unproven ?? []) writable = this.#open.send(chunk);
    if (this.#ended && !this.#request.complete) this.#open.end();
    if (!this.#writable && writable) {
      this.#writable = true;
      this.#sink.writable();
    }
  }

  /** Takes the memory of the payload over. False: wait for `writable` before the next. */
  send(payload: Uint8Array): boolean {
    if (this.#done) return true;
    if (this.#unproven !== undefined) {
      this.#unproven.push(payload);
      if (this.#open?.dispatched) this.#unproven = undefined;
    }
    if (this.#open === undefined) {
      const held = this.#unproven?.reduce((sum, chunk) => sum + chunk.byteLength, 0) ?? 0;
      this.#writable = held < streamWindow;
    } else {
      this.#writable = this.#open.send(payload);
      if (this.#unproven === undefined) release(payload);
    }
    return this.#writable;
  }

  finish(): void {
    if (this.#ended || this.#done) return;
    this.#ended = true;
    this.#open?.end();
  }

  consumed(bytes: number): void {
    this.#open?.consumed(bytes);
  }

  /** Ends it from this side; the sink hears nothing more. */
  cancel(): void {
    if (this.#done) return;
    this.#settle();
    this.#open?.cancel();
  }

  /** @internal Ends it with a failure that came from this side of the link. */
  give(failure: Failure): void {
    if (this.#done) return;
    this.#settle();
    this.#sink.fail(failure);
  }

  expire(): void {
    if (this.#done) return;
    this.#settle();
    this.#open?.cancel();
    this.#sink.fail(new Failure('DeadlineExceeded', `${this.#method}: context deadline exceeded`));
  }

  message(payload: Uint8Array): void {
    this.#unproven = undefined;
    this.#sink.message(payload);
  }

  end(): void {
    this.#settle();
    this.#sink.end();
  }

  fail(failure: Failure, died: boolean): void {
    if (died && this.#policy.idempotent && !this.#resent && this.#request.complete) {
      this.#resent = true;
      this.begin();
      return;
    }
    if (died && this.#policy.onReload === 'migrate' && this.#request.complete) {
      // A stream that may move goes on after a crash as well: its cursor says from where.
      this.begin();
      return;
    }
    this.#settle();
    this.#sink.fail(failure);
  }

  undispatched(): void {
    this.#open = undefined;
    if (this.#link !== undefined) this.#slot.refused(this.#link, this);
    this.begin();
  }

  moved(): void {
    this.undispatched();
  }

  cursor(value: string): void {
    this.#cursor = value;
  }

  writable(): void {
    this.#unproven = undefined;
    this.#writable = true;
    this.#sink.writable();
  }

  #settle(): void {
    this.#done = true;
    this.#slot.settled(this);
    this.#deadlines.delete(this);
  }
}
