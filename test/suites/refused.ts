import type { ExecutionContext } from 'ava';
import { Failure, type FailureCode } from 'troupe/plugin';

/** Asserts that a call fails with that class, and with that message when one is given. */
export async function refused(
  t: ExecutionContext,
  call: () => Promise<unknown>,
  code: FailureCode,
  message?: string,
): Promise<void> {
  const thrown = await t.throwsAsync(call);
  t.true(thrown instanceof Failure);
  t.is((thrown as Failure).code, code, thrown?.message);
  if (message !== undefined) t.is(thrown?.message, message);
}
