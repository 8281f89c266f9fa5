/** What goes into a pool thread and comes out of it: plain data, so that it survives the way. */

import type { MessagePort } from 'node:worker_threads';
import type { FailureRecord } from 'troupe/plugin';
import type { Compression } from '../compression/format.ts';
import type { TarLimits } from '../tar/reader.ts';
import type { Inflate } from '../compression/decoder.ts';
import type { Applied } from './apply.ts';
import type { Deferred } from './extract.ts';
import type { FeedMemory } from './feed-memory.ts';
import type { SnapshotMount } from './mounts.ts';

/** How the two threads speak while a task runs: memory of 16 bytes that both see. */
export class TaskControl {
  readonly buffer: SharedArrayBuffer;
  readonly #cancel: Int32Array;
  readonly #bytes: BigInt64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer;
    this.#cancel = new Int32Array(buffer, 0, 1);
    this.#bytes = new BigInt64Array(buffer, 8, 1);
  }

  /** The task ends with Canceled soon: within a MiB of its data. */
  cancel(): void {
    Atomics.store(this.#cancel, 0, 1);
    Atomics.notify(this.#cancel, 0);
  }

  get canceled(): boolean {
    return Atomics.load(this.#cancel, 0) !== 0;
  }

  /** Uncompressed bytes that the task has been through. */
  get bytes(): number {
    return Number(Atomics.load(this.#bytes, 0));
  }

  set bytes(bytes: number) {
    Atomics.store(this.#bytes, 0, BigInt(bytes));
  }
}

export interface ApplyTask {
  /** For messages: `layer sha256:…` */
  readonly subject: string;
  /** The blob's file. */
  readonly blob: string;
  /** What the blob must be. Size 0: whatever it is. */
  readonly digest: string;
  readonly size: number;
  readonly mounts: readonly SnapshotMount[];
  /**
   * Unpack as an overlay's upper directory though the mount is a plain one, since it will become one: a layer prepared without its parents. What depends
   * on them is in the result's `deferred`, for a `complete` task.
   */
  readonly detached?: boolean;
  /** A directory of the caller's for mount points. */
  readonly scratch: string;
  /** Answer when the file system is durable. */
  readonly sync: boolean;
  readonly limits?: Partial<TarLimits>;
  readonly maxBytes?: number;
  /** The blob is still being written; see arrival.ts. */
  readonly arriving?: { readonly patienceMs: number; readonly waiting: SharedArrayBuffer };
  readonly inflate: Inflate;
  readonly control: SharedArrayBuffer;
  readonly memory: FeedMemory['buffers'];
}

/** Helps with the layer that has this memory; see feed.ts. */
export interface AssistTask {
  readonly memory: FeedMemory['buffers'];
}

/** Also what an `apply` says of itself while it runs: it is time for that. */
export interface WriteAheadTask {
  /** A directory of the file system. */
  readonly path: string;
}

export interface CompleteTask {
  readonly upper: string;
  /** Topmost first. */
  readonly lower: readonly string[];
  readonly deferred: Deferred;
  readonly sync: boolean;
}

export interface DiffTask {
  readonly subject: string;
  readonly left: readonly SnapshotMount[];
  readonly right: readonly SnapshotMount[];
  readonly compression: Compression;
  readonly scratch: string;
  /** Compressed bytes go out here; see channel.ts. */
  readonly port: MessagePort;
  readonly control: SharedArrayBuffer;
}

export interface DiffResult {
  /** Of the uncompressed tar. */
  readonly diffId: string;
  readonly size: number;
}

export type ApplyResult = Omit<Applied, 'digest'>;

/** A pool loses the class of an error on the way, so failures come back as data. */
export type Outcome<T> = { readonly value: T } | { readonly failure: FailureRecord };
