/** Who serves what, as every caller is told it: per contract its providers, each with how its methods are called. */
import { type Priority, priority } from './frames.ts';

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
