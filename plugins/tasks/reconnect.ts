/** Finding the shim of a bundle again after a start of the daemon. */

import { Failure } from 'troupe/plugin';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import type { StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import type { TasksHost } from './host.ts';
import { derivedSocketPath, type ShimAddress } from './shim-address.ts';
import { Shim } from './shim.ts';
import { plausiblePid, shimPid } from './shim-pid.ts';
import type { Task } from './task.ts';

export type Found =
  /** The shim answers and has the task. */
  | { readonly verdict: 'alive'; readonly state: StateResponse }
  /** Somebody holds the socket and does not answer in time. */
  | { readonly verdict: 'silent' }
  /** The shim answers and does not have the task: the daemon died between its start and Create. */
  | { readonly verdict: 'empty' }
  /** There is no shim, or what is there is none. */
  | { readonly verdict: 'dead'; readonly reason: string };

/** Where a bundle's shim should listen. One that died before it wrote its address down is looked for where containerd's shims make their sockets. */
export function addressOf(host: TasksHost, task: Task): ShimAddress {
  const { bundle } = task;
  return (
    bundle.address() ?? { path: derivedSocketPath(host.daemon.address, task.namespace, bundle.group()), version: 2 }
  );
}

/**
 * Connects `task` to its shim and asks after it, all within the load timeout. On `alive` the task's connection and pids are set; on `silent` its connection may be.
 * Never rejects.
 */
export async function reconnect(host: TasksHost, task: Task): Promise<Found> {
  const deadline = performance.now() + host.timeouts.load;
  const left = (): number => Math.max(1, deadline - performance.now());
  try {
    if (!task.shim?.alive) task.shim = await Shim.connect(addressOf(host, task), task.namespace, left(), host.log);
    const shim = task.shim;
    const { shimPid: claimed } = await shim.call('connect', { id: task.id }, { timeout: left() });
    task.shimPid = shimPid(claimed, task.binary);
    const state = await shim.call('state', { id: task.id, execId: '' }, { timeout: left() });
    if (!plausiblePid(state.pid) && state.status !== Status.STOPPED) {
      return { verdict: 'dead', reason: `it claims pid ${state.pid} for the container` };
    }
    task.pid = plausiblePid(state.pid) ? state.pid : 0;
    return { verdict: 'alive', state };
  } catch (error) {
    return verdictOf(task, Failure.from(error));
  }
}

function verdictOf(task: Task, failure: Failure): Found {
  if (failure.code === 'DeadlineExceeded') return { verdict: 'silent' };
  if (task.shim?.alive) {
    return failure.code === 'NotFound' ? { verdict: 'empty' } : { verdict: 'dead', reason: failure.message };
  }
  // A connection that could not be made for want of descriptors or room in the listener's queue says nothing of the shim.
  const unclear = task.shim === undefined && failure.code === 'Unavailable';
  return unclear ? { verdict: 'silent' } : { verdict: 'dead', reason: failure.message };
}
