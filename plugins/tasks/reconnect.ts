/** Finding the shim of a bundle again after a start of the daemon. */

import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import type { StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import type { TasksHost } from './host.ts';
import { derivedSocketPath, type ShimAddress } from './shim-address.ts';
import { Shim } from './shim.ts';
import { hasChildren, plausiblePid, shimPid } from './shim-pid.ts';
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

/** Pause, ms, between two questions to a shim that is still making its task. */
const makingPause = 50;

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
    const state = await stateOf(task, shim, left);
    if (!plausiblePid(state.pid) && state.status !== Status.STOPPED) {
      return { verdict: 'dead', reason: `it claims pid ${state.pid} for the container` };
    }
    task.pid = plausiblePid(state.pid) ? state.pid : 0;
    return { verdict: 'alive', state };
  } catch (error) {
    return verdictOf(task, Failure.from(error));
  }
}

/** A shim knows its task once it is made. While its runtime still runs for a Create whose caller died, it is waited for: ended in the middle, it would leave half a container. */
async function stateOf(task: Task, shim: Shim, left: () => number): Promise<StateResponse> {
  for (;;) {
    // Looked at before asking: what is made in between is there when it is asked.
    const making = task.shimPid !== undefined && hasChildren(task.shimPid);
    try {
      return await shim.call('state', { id: task.id, execId: '' }, { timeout: left() });
    } catch (error) {
      if (!making || !Failure.is(error, 'NotFound') || left() <= makingPause) throw error;
      await delay(makingPause);
    }
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
