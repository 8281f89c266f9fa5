/**
 * The one error vocabulary of the daemon: containerd's errdefs classes, as data that survives a thread boundary.
 *
 * Structured clone drops an Error's subclass and own fields, so a Failure crosses the bus as `{code, message, details}` and is
 * built again on the other side. `cause` stays where it was thrown, for that side's log.
 */

/** Classes, each with its gRPC status number (gRPC's doc/statuscodes.md). `front/status.ts` is the only place that uses the numbers. */
export const failureCodes = {
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

export type FailureCode = keyof typeof failureCodes;

/** A Failure as it travels. `details` is a serialized google.rpc.Status when a client should get `grpc-status-details-bin`. */
export interface FailureRecord {
  readonly code: FailureCode;
  readonly message: string;
  readonly details?: Uint8Array;
}

export class Failure extends Error {
  readonly code: FailureCode;
  readonly details: Uint8Array | undefined;

  constructor(code: FailureCode, message: string, options: { cause?: unknown; details?: Uint8Array } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Failure';
    this.code = code;
    this.details = options.details;
  }

  /**
   * What a thrown value becomes at the border of a plugin: a Failure as it is; an abort as Canceled or DeadlineExceeded; the system errors that a
   * client can act on by their class (a full disk and too many open files are ResourceExhausted); anything else Unknown, as containerd maps an untyped error.
   */
  static from(thrown: unknown): Failure {
    if (thrown instanceof Failure) return thrown;
    if (thrown instanceof Error) {
      const errno = (thrown as NodeJS.ErrnoException).code;
      if (thrown.name === 'AbortError') return new Failure('Canceled', 'context canceled', { cause: thrown });
      if (thrown.name === 'TimeoutError')
        return new Failure('DeadlineExceeded', 'context deadline exceeded', { cause: thrown });
      if (errno === 'ENOSPC' || errno === 'EDQUOT')
        return new Failure('ResourceExhausted', `no space left on device: ${thrown.message}`, { cause: thrown });
      if (errno === 'EMFILE' || errno === 'ENFILE')
        return new Failure('ResourceExhausted', `too many open files: ${thrown.message}`, { cause: thrown });
      return new Failure('Unknown', thrown.message, { cause: thrown });
    }
    return new Failure('Unknown', textOf(thrown));
  }

  static fromRecord(record: FailureRecord): Failure {
    return new Failure(record.code, record.message, record.details === undefined ? {} : { details: record.details });
  }

  toRecord(): FailureRecord {
    return { code: this.code, message: this.message, ...(this.details === undefined ? {} : { details: this.details }) };
  }

  static is(thrown: unknown, code: FailureCode): thrown is Failure {
    return thrown instanceof Failure && thrown.code === code;
  }
}

/** Anything may be thrown, also what cannot be made a text. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return 'something was thrown that is no error and has no text';
  }
}
