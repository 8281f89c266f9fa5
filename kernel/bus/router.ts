/**
 * The calling side of a worker: contract → slot → the link to the generation that serves now.
 *
 * A slot is the stable name of a plugin. Its link may be missing (not yet asked for, crashed, or held during a reload); calls then wait in
 * order, within their deadline and within the bounds below. Calls that were dispatched to a generation that died are sent once more only when
 * their method is declared idempotent.
 */
import { Failure } from '../sdk/failure.ts';
import { CallerLink, type CallSink, type OpenCall } from './caller.ts';
import type { Deadlines, Expiring } from './deadlines.ts';
import { type CallMeta, type Port, type Priority, priority } from './frames.ts';
import { streamWindow } from './link.ts';
import type { Scheduler } from './scheduler.ts';

/** How a method is called, from its provider's manifest. */
export interface MethodPolicy {
  readonly unbounded: boolean;
  /** Milliseconds a call may take when its caller sets no deadline. */
  readonly deadlineMs: number;
  readonly priority: Priority;
  readonly idempotent: boolean;
  readonly onReload: 'finish' | 'migrate';
}

export const defaultPolicy: MethodPolicy = {
  unbounded: false,
  deadlineMs: 60_000,
  priority: priority.interactive,
  idempotent: false,
  onReload: 'finish',
};

export interface Provider {
  /** Plugin id. */
  readonly slot: string;
  /** One of several providers of a contract; empty for the only or the public one. */
  readonly name: string;
  /** Clients of the daemon may call it. */
  readonly public: boolean;
  readonly methods: { readonly [method: string]: MethodPolicy };
  /** What the provider serves, as it said when it started; empty before. */
  readonly shapes: readonly MethodShape[];
}

export interface MethodShape {
  /** `containerd.services.images.v1.Images/Get` */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/** Who serves what: the plan, as every worker is told it. */
export type Routes = { readonly [contract: string]: readonly Provider[] };

/** A link as the kernel hands it out: the caller's end of a channel, and the page both ends see. */
export interface LinkOffer {
  readonly generation: number;
  readonly port: Port;
  readonly page: SharedArrayBuffer;
}

export interface Introducer {
  /** Asks the kernel for a link to the generation that serves `slot` now; the answer comes as {@link Router.relink}. */
  introduce(slot: string): void;
}

/** Calls and bytes that may wait for a slot that has no generation. Above it calls fail at once. */
const waitingCalls = 4096;
const waitingBytes = 64 * 1024 * 1024;
/** How long calls wait for those before them to come back from a generation that has let go: it does nothing else by then. One that hangs keeps nobody for longer. */
const defaultReturningMs = 1000;
/** From one look to the next for those of them that were begun after all. */
const lookMs = 5;

interface Slot {
  readonly name: string;
  link: CallerLink | undefined;
  generation: number;
  asked: boolean;
  /** The kernel has said that nothing will serve it until it says otherwise. */
  failure: Failure | undefined;
  readonly waiting: Set<RoutedCall>;
  bytes: number;
  /** Calls on the link before that nobody had begun when it was left. They are refused, and were made before all that wait: the line goes on when they are in it. */
  readonly returning: Set<RoutedCall>;
  look: NodeJS.Timeout | undefined;
}

export class Router {
  readonly #introducer: Introducer;
  readonly #scheduler: Scheduler;
  readonly deadlines: Deadlines;
  readonly #slots = new Map<string, Slot>();
  readonly #watchers: ((routes: Routes) => void)[] = [];
  #routes: Routes = {};
  #calls = 0;
  readonly #returningMs: number;

  constructor(introducer: Introducer, scheduler: Scheduler, deadlines: Deadlines, returningMs = defaultReturningMs) {
    this.#introducer = introducer;
    this.#returningMs = returningMs;
    this.#scheduler = scheduler;
    this.deadlines = deadlines;
  }

  setRoutes(routes: Routes): void {
    this.#routes = routes;
    for (const watcher of this.#watchers) watcher(routes);
  }

  /** Hears of every change of the routes. */
  onRoutes(watcher: (routes: Routes) => void): void {
    this.#watchers.push(watcher);
  }

  get routes(): Routes {
    return this.#routes;
  }

  /** Provider of a contract: the one called `name`, or the only or unnamed one. Throws Unimplemented when there is none. */
  provider(contract: string, name = ''): Provider {
    const providers = this.#routes[contract];
    const found =
      name === ''
        ? (providers?.find((each) => each.name === '') ?? providers?.[0])
        : providers?.find((each) => each.name === name);
    if (found === undefined) {
      throw new Failure(
        'Unimplemented',
        `no plugin serves ${contract}${name === '' ? '' : ` as "${name}"`}: not implemented`,
      );
    }
    return found;
  }

  call(provider: Provider, method: string, request: RouteRequest, sink: RouteSink): RoutedCall {
    const policy = provider.methods[method.slice(method.indexOf('/') + 1)] ?? defaultPolicy;
    const slot = this.#slot(provider.slot);
    const call = new RoutedCall(this, slot, this.#calls++, method, request, policy, sink);
    call.begin();
    return call;
  }

  /** The kernel's answer to `introduce`, and what it sends when another generation begins to serve. */
  relink(name: string, offer: LinkOffer): void {
    const slot = this.#slot(name);
    const link = new CallerLink(name, offer.port, offer.page, this.#scheduler);
    // The link before stays open: calls that run on its generation finish there.
    this.#leave(slot);
    slot.link = link;
    slot.generation = offer.generation;
    slot.asked = false;
    slot.failure = undefined;
    this.#advance(slot);
  }

  /** The slot has no generation and gets none for now (failed, stopped, disabled): those who wait are told. */
  down(name: string, failure: Failure): void {
    const slot = this.#slot(name);
    this.#leave(slot);
    slot.asked = false;
    slot.failure = failure;
    const waiting = [...slot.waiting];
    slot.waiting.clear();
    slot.bytes = 0;
    for (const call of waiting) call.give(failure);
  }

  /** Open calls and waiting ones, for leak checks and for the plugin list. */
  get pending(): number {
    let count = 0;
    for (const slot of this.#slots.values()) count += slot.waiting.size + (slot.link?.pending ?? 0);
    return count;
  }

  /** @internal The link for a call whose turn it is; otherwise the call is in line. */
  admit(slot: Slot, call: RoutedCall): CallerLink | undefined {
    if (slot.failure !== undefined) throw slot.failure;
    const link = this.#linkOf(slot);
    if (link !== undefined && slot.waiting.size === 0 && slot.returning.size === 0) return link;
    this.#wait(slot, call);
    // The last that was waited for may be this one.
    this.#advance(slot);
    return undefined;
  }

  #linkOf(slot: Slot): CallerLink | undefined {
    if (slot.link !== undefined && !slot.link.closed) return slot.link;
    slot.link = undefined;
    if (!slot.asked) {
      slot.asked = true;
      this.#introducer.introduce(slot.name);
    }
    // Set when the introduction was made at once.
    return slot.link;
  }

  /** @internal The generation behind the link takes no more calls, this one for a start; the kernel tells when the next one does. */
  refused(slot: Slot, link: CallerLink, call: RoutedCall): void {
    slot.returning.delete(call);
    if (slot.link === link) {
      this.#leave(slot);
      this.#linkOf(slot);
    }
  }

  #leave(slot: Slot): void {
    // All calls of a router's links are its own.
    for (const call of slot.link?.undispatched ?? []) slot.returning.add(call as RoutedCall);
    slot.link = undefined;
    if (slot.returning.size === 0 || slot.look !== undefined) return;
    const end = performance.now() + this.#returningMs;
    slot.look = setInterval(() => {
      const late = performance.now() > end;
      for (const call of slot.returning) if (late || call.begun) slot.returning.delete(call);
      if (slot.returning.size > 0) return;
      clearInterval(slot.look);
      slot.look = undefined;
      this.#advance(slot);
    }, lookMs);
  }

  #wait(slot: Slot, call: RoutedCall): void {
    if (slot.waiting.size >= waitingCalls || slot.bytes + call.bytes > waitingBytes) {
      throw new Failure(
        'ResourceExhausted',
        `plugin ${slot.name} is restarting and ${slot.waiting.size} calls wait for it: resource exhausted`,
      );
    }
    slot.waiting.add(call);
    slot.bytes += call.bytes;
  }

  /** @internal Nobody waits for the call any more. */
  settled(slot: Slot, call: RoutedCall): void {
    if (slot.waiting.delete(call)) slot.bytes -= call.bytes;
    if (slot.returning.delete(call)) this.#advance(slot);
  }

  /** Sends what waits, in the order in which it was made, if there is where to and nothing before it is still to come back. */
  #advance(slot: Slot): void {
    if (slot.returning.size > 0 || slot.waiting.size === 0 || slot.link === undefined) return;
    const waiting = [...slot.waiting].sort((one, other) => one.number - other.number);
    slot.waiting.clear();
    slot.bytes = 0;
    for (const call of waiting) call.begin();
  }

  #slot(name: string): Slot {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      slot = {
        name,
        link: undefined,
        generation: 0,
        asked: false,
        failure: undefined,
        waiting: new Set(),
        bytes: 0,
        returning: new Set(),
        look: undefined,
      };
      this.#slots.set(name, slot);
    }
    return slot;
  }
}

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

/** A call with its place in line: it survives the death of a generation that had not begun on it, and a reload of one that streams `migrate`. */
export class RoutedCall implements CallSink, Expiring {
  /** In the order in which its router's calls were made. */
  readonly number: number;
  readonly #router: Router;
  readonly #slot: Slot;
  readonly #method: string;
  readonly #request: RouteRequest;
  readonly #meta: CallMeta;
  readonly #policy: MethodPolicy;
  readonly #sink: RouteSink;
  readonly #deadline: number;
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
    router: Router,
    slot: Slot,
    number: number,
    method: string,
    request: RouteRequest,
    policy: MethodPolicy,
    sink: RouteSink,
  ) {
    this.#router = router;
    this.#slot = slot;
    this.number = number;
    this.#method = method;
    this.#policy = policy;
    this.#sink = sink;
    this.#request = request;
    const { meta } = request;
    const bounded = meta.deadline === 0 && !policy.unbounded && request.complete && request.single;
    this.#meta = bounded ? { ...meta, deadline: Date.now() + policy.deadlineMs } : meta;
    this.#deadline = this.#meta.deadline;
    this.#unproven = request.complete ? undefined : [];
    if (this.#deadline !== 0) router.deadlines.add(this, this.#deadline);
  }

  /** By the generation that it was sent to last. */
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
      const link = this.#router.admit(this.#slot, this);
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

  /** False: wait for `writable` before the next. */
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
    if (this.#link !== undefined) this.#router.refused(this.#slot, this.#link, this);
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
    this.#router.settled(this.#slot, this);
    if (this.#deadline !== 0) this.#router.deadlines.delete(this, this.#deadline);
  }
}
