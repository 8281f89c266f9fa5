/** The calling side of a worker: contract → provider → slot, and a call on it. */
import { Failure } from '../sdk/failure.ts';
import { CallerLink } from './caller.ts';
import type { Deadlines } from './deadlines.ts';
import type { Port } from './frames.ts';
import { RoutedCall, type RouteRequest, type RouteSink } from './routed-call.ts';
import { defaultPolicy, type Provider, type Routes } from './routes.ts';
import type { Scheduler } from './scheduler.ts';
import { type Introducer, Slot } from './slot.ts';

/** A link as the kernel hands it out: the caller's end of a channel, and the page both ends see. */
export interface LinkOffer {
  readonly port: Port;
  readonly page: SharedArrayBuffer;
}

export class Router {
  readonly #introducer: Introducer;
  readonly #scheduler: Scheduler;
  readonly #deadlines: Deadlines;
  readonly #slots = new Map<string, Slot>();
  readonly #watchers: ((routes: Routes) => void)[] = [];
  #routes: Routes = {};
  #calls = 0;
  readonly #returningMs: number | undefined;

  /** @param returningMs for tests: how long a call waits for those before it that no generation has begun */
  constructor(introducer: Introducer, scheduler: Scheduler, deadlines: Deadlines, returningMs?: number) {
    this.#introducer = introducer;
    this.#returningMs = returningMs;
    this.#scheduler = scheduler;
    this.#deadlines = deadlines;
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
    const call = new RoutedCall(
      this.#slot(provider.slot),
      this.#calls++,
      this.#deadlines,
      method,
      request,
      policy,
      sink,
    );
    call.begin();
    return call;
  }

  /** The kernel's answer to `introduce`, and what it sends when another generation begins to serve. */
  relink(name: string, offer: LinkOffer): void {
    this.#slot(name).relink(new CallerLink(name, offer.port, offer.page, this.#scheduler));
  }

  /** The slot has no generation and gets none for now. */
  down(name: string, failure: Failure): void {
    this.#slot(name).down(failure);
  }

  /** Open calls and waiting ones, for leak checks and for the plugin list. */
  get pending(): number {
    let count = 0;
    for (const slot of this.#slots.values()) count += slot.pending;
    return count;
  }

  #slot(name: string): Slot {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      slot = new Slot(name, this.#introducer, this.#returningMs);
      this.#slots.set(name, slot);
    }
    return slot;
  }
}
