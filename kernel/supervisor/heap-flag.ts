/** Node's heap flag reaches every worker and undoes the limits that the manifests set. */
import { Failure } from '../sdk/failure.ts';

const flag = /^--max[-_](old[-_]space|heap)[-_]size(-percentage)?(=|$)/;

/** @throws Failure FailedPrecondition */
export function refuseHeapFlag(
  argv: readonly string[] = process.execArgv,
  options: string = process.env.NODE_OPTIONS ?? '',
): void {
  const found = [...argv, ...options.split(/\s+/)].find((each) => flag.test(each));
  if (found === undefined) return;
  throw new Failure(
    'FailedPrecondition',
    `Node was started with ${found}, which overrides the memory limit of every plugin; each manifest has its own ([limits]): failed precondition`,
  );
}
