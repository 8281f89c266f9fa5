/** Turns what the system says about one entry of a layer into the failure that a client sees. */

import { Failure } from 'troupe/plugin';
import { type ByteString, quote } from './name.ts';

/** Errors that the archive itself brought about: names too long, loops, files where directories should be, links to nothing. */
const faultsOfArchive = new Set([
  'ENAMETOOLONG',
  'ELOOP',
  'ENOTDIR',
  'ENOENT',
  'EEXIST',
  'EISDIR',
  'EXDEV',
  'EINVAL',
  'ERANGE',
  'E2BIG',
  'EFBIG',
]);

export function invalidEntry(subject: string, name: ByteString, what: string): Failure {
  return new Failure('InvalidArgument', `${subject}: entry ${quote(name)}: ${what}: invalid argument`);
}

/** @param thrown what a system call threw while `name` was being made. Failures pass as they are. */
export function entryFailure(subject: string, name: ByteString, thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  const code = (thrown as NodeJS.ErrnoException).code ?? '';
  const words = thrown instanceof Error ? thrown.message : String(thrown);
  const message = `${subject}: entry ${quote(name)}: ${words}`;
  if (faultsOfArchive.has(code))
    return new Failure('InvalidArgument', `${message}: invalid argument`, { cause: thrown });
  if (code === 'EMLINK') return new Failure('FailedPrecondition', `${message}: failed precondition`, { cause: thrown });
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new Failure('ResourceExhausted', `${message}: no space left on device: resource exhausted`, {
      cause: thrown,
    });
  }
  if (code === 'EMFILE' || code === 'ENFILE') {
    return new Failure('ResourceExhausted', `${message}: resource exhausted`, { cause: thrown });
  }
  return new Failure('Unknown', message, { cause: thrown });
}
