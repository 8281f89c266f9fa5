/** One worker's run of one build of a plugin, and the ends of it. */
import type { MethodShape } from '../bus/routes.ts';
import { Failure } from '../sdk/failure.ts';
import type { WorkerControl } from '../sdk/protocol.ts';
import type { Build } from './builds.ts';
import type { WorkerHandle } from './worker-handle.ts';

export interface Generation {
  readonly number: number;
  readonly handle: WorkerHandle;
  /** It has a worker to itself, which ends with it. */
  readonly own: boolean;
  build: Build;
  /** When its worker was made, milliseconds since the epoch: files that changed later are not what it runs. */
  readonly madeAt: number;
  shapes: readonly MethodShape[];
  /** Its end is wanted. */
  expected: boolean;
}

/** What a start is late with, in words for whoever wrote the plugin. */
const lateWith = {
  load: 'its code has not loaded',
  start: 'its start() has not returned',
  activate: 'its activate() has not returned',
} as const;

/** A step of the start, within the start deadline. @throws Failure that says which step it was */
export async function startStep<K extends 'load' | 'start' | 'activate'>(
  handle: WorkerHandle,
  step: K,
  args: Parameters<WorkerControl[K]>,
  deadlineMs: number,
): Promise<Awaited<ReturnType<WorkerControl[K]>>> {
  try {
    return await handle.call(step, args, deadlineMs);
  } catch (error) {
    if (!Failure.is(error, 'DeadlineExceeded')) throw error;
    const text = `start deadline: ${lateWith[step]} within ${deadlineMs / 1000} s: deadline exceeded`;
    throw new Failure('DeadlineExceeded', text, { cause: error });
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
