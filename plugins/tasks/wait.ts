/** Wait: the exit of a process, from its shim, or from the daemon when the shim did not live to tell it. */

import { type Call, Failure } from 'troupe/plugin';
import type { WaitRequest, WaitResponse } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import type { TaskManager } from './manager.ts';
import type { Task } from './task.ts';

/** Cursor of a Wait whose task was found: should it come back from a reload to a task that has gone, its exit is looked up rather than refused. */
const accepted = 'accepted';

export async function waitForExit(
  manager: TaskManager,
  find: () => Promise<Task>,
  { containerId, execId }: WaitRequest,
  call: Call,
): Promise<WaitResponse> {
  let task: Task;
  try {
    task = await find();
  } catch (error) {
    const exit = call.resume === accepted ? manager.exits.ledger.find(call.namespace, containerId, execId) : undefined;
    if (exit === undefined) throw error;
    return exit;
  }
  call.cursor(accepted);
  const shim = task.connection;
  try {
    const { exitStatus, exitedAt } = await shim.call(
      'wait',
      { id: task.id, execId },
      { timeout: 'none', signal: call.signal },
    );
    return { exitStatus, exitedAt };
  } catch (error) {
    if (shim.alive || !Failure.is(error, 'Unavailable')) throw error;
    // With its shim all processes of a container die, those of its execs too.
    const exit = await manager.whenEnded(task, call.signal);
    if (exit === undefined) throw error;
    return { exitStatus: exit.exitStatus, exitedAt: exit.exitedAt };
  }
}
