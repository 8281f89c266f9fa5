/** What a commit is told when SQLite refused it. */
import { Failure } from 'troupe/plugin';
import { classify } from './sqlite-error.ts';

/** No room, and nothing was changed. */
export function noSpace(cause?: unknown): Failure {
  return new Failure(
    'ResourceExhausted',
    'records: no space left on device: resource exhausted',
    cause === undefined ? {} : { cause },
  );
}

/** What SQLite refused, when the statement had no words of its own for it. */
export function toFailure(error: unknown): Failure {
  if (error instanceof Failure) return error;
  const text = `records: ${(error as Error).message}`;
  switch (classify(error)) {
    case 'denied':
      return new Failure('PermissionDenied', `${text}: permission denied`, { cause: error });
    case 'constraint':
      return new Failure('FailedPrecondition', `${text}: failed precondition`, { cause: error });
    case 'full':
      return noSpace(error);
    case 'locked':
      return new Failure('Unavailable', `${text}: unavailable`, { cause: error });
    default:
      return new Failure('Internal', `${text}: internal`, { cause: error });
  }
}
