/** What a suite is given to work on, at whichever altitude it runs: a client, and the few things around it that a suite needs. */
import type { CallOptions } from 'troupe/plugin';

/** An event as subscribers get it. */
export interface SeenEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export interface Subject {
  /** Two namespaces that nobody else uses. */
  readonly namespace: string;
  readonly otherNamespace: string;
  /** Makes a lease; resources are added under it by passing it as an option of a call. */
  createLease(namespace: string, id: string): Promise<void>;
  leaseResources(namespace: string, id: string): Promise<{ type: string; id: string }[]>;
  /** Events of the namespace since it was asked last; waits for that many at least. */
  events(namespace: string, count: number): Promise<SeenEvent[]>;
  /** Marks and sweeps now. */
  collect(): Promise<unknown>;
}

/** Options of a call in the subject's namespace. */
export function within(subject: { namespace: string }, options: CallOptions = {}): CallOptions {
  return { namespace: subject.namespace, ...options };
}
