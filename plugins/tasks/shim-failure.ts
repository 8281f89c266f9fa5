/**
 * What a shim's refusal becomes at the daemon's border. containerd reads the status by its class, puts the class's words at the end of the message, and takes
 * codes that it has no class for as unknown; clients (dockerd for its exit codes) match on the result, so it is done the same way here.
 */

import { Failure, type FailureCode } from 'troupe/plugin';
import { may } from '../lib/privilege/privilege.ts';

const words: Partial<Record<FailureCode, string>> = {
  InvalidArgument: 'invalid argument',
  NotFound: 'not found',
  AlreadyExists: 'already exists',
  FailedPrecondition: 'failed precondition',
  Unavailable: 'unavailable',
  Unimplemented: 'not implemented',
  Canceled: 'context canceled',
  DeadlineExceeded: 'context deadline exceeded',
  ResourceExhausted: 'resource exhausted',
};

/**
 * A container that was refused because this daemon is not root, or a root that may not mount: what the shim or its runtime say names the first thing that
 * failed, some directory or mount, and not the reason.
 */
export function withoutPrivilege(failure: Failure, privileged = may.mount): Failure {
  if (privileged || failure.code !== 'Unknown') return failure;
  // A shim that may not be executed is another matter.
  if (!/^(?!.*fork\/exec).*(permission denied|operation not permitted)/is.test(failure.message)) return failure;
  const words = failure.message.replace(/: unknown$/, '');
  const text = `${words}: this daemon may not mount, and containers take a daemon of root that may: permission denied`;
  return new Failure('PermissionDenied', text, { cause: failure });
}

/** The failure of a call to a shim, as clients of the daemon see it. */
export function shimFailure(thrown: unknown): Failure {
  const failure = Failure.from(thrown);
  const word = words[failure.code];
  const code = word === undefined ? 'Unknown' : failure.code;
  const suffix = word ?? 'unknown';
  const { message } = failure;
  if (message === suffix || message.endsWith(`: ${suffix}`)) return new Failure(code, message, { cause: thrown });
  return new Failure(code, message === '' ? suffix : `${message}: ${suffix}`, { cause: thrown });
}

/** The same failure with what was being done in front, as Go's `%w` does. */
export function during(what: string, thrown: unknown): Failure {
  const failure = Failure.from(thrown);
  return new Failure(failure.code, `${what}: ${failure.message}`, { cause: thrown });
}

/** Words of a failed system call as the C library has them: `no such file or directory`. */
export function systemWords(error: NodeJS.ErrnoException): string {
  const words = /^E[A-Z0-9]+: ([^,]+)/.exec(error.message);
  return words?.[1] ?? (error.code === undefined ? error.message : (codeWords[error.code] ?? error.message));
}

// What spawn says is only a code.
const codeWords: Record<string, string> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  ENOEXEC: 'exec format error',
  EISDIR: 'is a directory',
  EAGAIN: 'resource temporarily unavailable',
  ENOMEM: 'cannot allocate memory',
  ETXTBSY: 'text file busy',
};
