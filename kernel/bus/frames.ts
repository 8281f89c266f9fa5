/**
 * What travels on a link, types only: enough to write the other side in another language.
 *
 * A link joins one caller to one callee (two links where both call). What is posted is a batch: the frames of one tick and one
 * priority, each `u32le header length | u32le payload length | header | payload`. The header is a positional msgpack array whose first
 * element is the kind; the payload is protobuf that the bus never reads.
 *
 * Order is kept per link and priority. Across priorities a later frame may overtake: a cancel can arrive before its call.
 */

/** Kinds are data on the wire between two builds that live at once: numbers are never given a new meaning. */
export const frameKind = {
  /**
   * caller → callee: [kind, id, method, flags, from, namespace, lease, deadline, trace, cursor, kept] + first message, if any. `kept` is the number under which later
   * calls of the same priority refer to this header, -1 for none.
   */
  call: 1,
  /** callee → caller: [kind, id] + the only message; ends the call. */
  reply: 3,
  /** callee → caller: [kind, id, code, message, details | null]; ends the call. */
  fail: 4,
  /** either way: [kind, id] + a message of a stream */
  chunk: 5,
  /** either way: [kind, id]: no more chunks from this side; from the callee it ends the call. */
  end: 6,
  /** caller → callee: [kind, id]: nobody waits any more. Idempotent. */
  cancel: 7,
  /** either way: [kind, id, bytes]: the receiver has consumed that much and takes as much more. */
  credit: 8,
  /** callee → caller: [kind, id, cursor]: where a stream that outlives its generation goes on from. */
  cursor: 9,
  /** callee → caller: [kind, id]: not dispatched, this generation takes no more calls; ask the next one. */
  refuse: 10,
  /** callee → caller: [kind, id]: a `migrate` stream ends here with its generation; go on with the next one from the cursor. */
  moved: 11,
  /** caller → callee: [kind, id, kept, deadline] + first message, if any: a call with the header that was last kept under that number, without trace and cursor. */
  repeat: 12,
} as const;

export type FrameKind = (typeof frameKind)[keyof typeof frameKind];

/** Bits of a call's flags. */
export const callFlag = {
  /** The payload is the whole request. */
  complete: 1,
  /** The payload holds a message (it may be empty). */
  message: 2,
  /** The caller expects exactly one message back. */
  single: 4,
} as const;

/** Strict for control, weighted for the others (see scheduler.ts). Index of the queue a batch goes through. */
export const priority = { control: 0, interactive: 1, bulk: 2 } as const;
export type Priority = (typeof priority)[keyof typeof priority];

/** What a call carries besides its method and message. Empty strings and 0 mean "none". */
export interface CallMeta {
  /** Plugin id of the caller. */
  readonly from: string;
  readonly namespace: string;
  readonly lease: string;
  /** Milliseconds since the epoch; 0 = unbounded. */
  readonly deadline: number;
  /** W3C traceparent. */
  readonly trace: string;
  readonly cursor: string;
}

/** A frame as it is read: the header's fields behind kind and id, and the payload. */
export interface Frame {
  readonly kind: FrameKind;
  readonly id: number;
  /** The header, element 0 being the kind. */
  readonly header: readonly unknown[];
  readonly payload: Uint8Array | undefined;
}

/** The least a transport must offer. A worker's MessagePort does; so does a pair in memory for tests. */
export interface Port {
  postMessage(message: PortMessage, transfer?: readonly ArrayBuffer[]): void;
  on(event: 'message', listener: (message: PortMessage) => void): unknown;
  on(event: 'close', listener: () => void): unknown;
  close(): void;
}

/** A batch, tagged with its priority; or the shared memory that later slab references point into. */
export type PortMessage = { p: Priority; b: Uint8Array } | { slab: SharedArrayBuffer };
