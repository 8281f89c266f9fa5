/**
 * The records as a plugin sees them: reads on its own read-only connection, writes as one commit.
 *
 * A commit is all or nothing and is answered after it is durable. What was read before it may have changed by then, so a
 * statement says what it expects (`rows`), and a lost race comes back as its `otherwise`.
 */
import type { EventCodec } from './plugin.ts';
import type { FailureRecord } from './failure.ts';

export type SqlValue = null | number | bigint | string | Uint8Array;

export interface Statement {
  readonly sql: string;
  readonly params?: readonly SqlValue[];
  /** Rows it must change (INSERT, UPDATE, DELETE) or return (SELECT, RETURNING). */
  readonly rows?: number;
  /** The failure when `rows` does not hold. A record is enough, and costs no stack trace in every commit that goes well. */
  readonly otherwise?: FailureRecord;
  /** The failure when a constraint refuses it. */
  readonly conflict?: FailureRecord;
}

export interface RecordEvent {
  readonly namespace: string;
  readonly topic: string;
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export interface LeaseResource {
  /** `content`, `ingests`, `images`, `snapshots/<snapshotter>` */
  readonly type: string;
  readonly id: string;
}

export interface Commit {
  readonly statements: readonly Statement[];
  /** Created when it is not there yet. */
  readonly namespace?: string;
  /** The lease must exist (NotFound otherwise). */
  readonly lease?: { namespace: string; id: string; add?: readonly LeaseResource[]; remove?: readonly LeaseResource[] };
  readonly events?: readonly RecordEvent[];
  /** Paths for their owner to remove from disk after the commit. */
  readonly trash?: readonly { owner: string; path: string }[];
}

export interface CommitResult {
  /** Counts commits of this database's life. */
  readonly sequence: number;
  readonly results: readonly { changes: number; rows: SqlValue[][] }[];
}

export interface Records {
  all<T>(sql: string, ...params: SqlValue[]): T[];
  get<T>(sql: string, ...params: SqlValue[]): T | undefined;
  commit(commit: Commit, options?: { signal?: AbortSignal; timeoutMs?: number }): Promise<CommitResult>;
}

/** An event to ride in a commit. */
export function recordEvent<T>(namespace: string, topic: string, type: EventCodec<T>, message: T): RecordEvent {
  return { namespace, topic, typeUrl: type.$type, value: type.encode(message).finish() };
}
