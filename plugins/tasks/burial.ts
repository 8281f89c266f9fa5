/**
 * How a task is taken away, from the kindest means to the last: the shim's own Shutdown, SIGTERM, SIGKILL, the shim binary's `delete`, and what it cannot do.
 * Every step has an end, and none keeps the next one from being tried.
 */

import { lstatSync, readFileSync, unlinkSync } from 'node:fs';
import { Failure } from 'troupe/plugin';
import type { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { isListening } from 'troupe/sys';
import { now } from '../lib/timestamp/timestamp.ts';
import { removeCgroups } from './cgroups.ts';
import type { TasksHost } from './host.ts';
import { deleteByShim } from './shim-process.ts';
import { endProcess, findRuntimes, findShim, goneWithin, isRunning, plausiblePid, type ShimPid } from './shim-pid.ts';
import { whenThereAreDescriptors } from './scarcity.ts';
import { settledWithin } from './settled.ts';
import type { Task } from './task.ts';

/** What a process that was killed leaves as its status: 128 + SIGKILL. */
export const killedStatus = 137;

/** A status for an end that nobody saw; the API's own word for it. */
const unknownStatus = 255;

/** How long, ms, a shim may take from its last connection to its end. */
const partingTime = 1000;

/** Asks a shim whose task is deleted to end, and makes it when it does not. `shared`: it has other tasks, and will not. */
export async function retireShim(host: TasksHost, task: Task, shared: boolean): Promise<void> {
  const { shim } = task;
  if (shim?.alive) {
    try {
      await shim.call('shutdown', { id: task.id, now: false }, { timeout: host.timeouts.shutdown });
    } catch {
      // A shim may end before its answer has left.
    }
    const parted = !shared && (await settledWithin(shim.closed, host.timeouts.shutdown));
    shim.close();
    // Its process ends some milliseconds after its last connection.
    const { shimPid } = task;
    if (parted && shimPid !== undefined && (await whenThereAreDescriptors(() => goneWithin(shimPid, partingTime))))
      return;
  }
  if (!shared) await endShim(host, task);
}

/**
 * Ends the process of a shim that does not end by itself; where its pid is not known, whatever runs under the task's name: a `start` whose daemon died meanwhile,
 * and what that started. True when it is gone, as far as can be seen.
 */
export function endShim(host: TasksHost, task: Task): Promise<boolean> {
  return whenThereAreDescriptors(() => end(host, task));
}

async function end(host: TasksHost, task: Task): Promise<boolean> {
  const { namespace, id, binary } = task;
  const find = (): ShimPid | undefined => findShim(binary, namespace, id, host.daemon.address);
  let target = task.shimPid ?? find();
  if (target === undefined) return !task.shim?.alive;
  for (let round = 0; target !== undefined && round < 4; round++) {
    if (isRunning(target)) {
      host.log.warn('ending a shim that does not end by itself', { namespace, id, pid: target.pid });
      if (!(await endProcess(target, Math.min(1000, host.timeouts.cleanup)))) return false;
    }
    target = task.shimPid === undefined ? find() : undefined;
  }
  return target === undefined;
}

/**
 * Takes away what there may be of a container whose shim said that it has none: a Create that it had not read yet when it said so started a runtime, which outlives it.
 * That is let end, since what it is killed in the middle of nobody can take away.
 */
export async function clearUnmade(host: TasksHost, task: Task): Promise<void> {
  const { namespace, id, binary, bundle } = task;
  await whenThereAreDescriptors(async () => {
    for (const process of findRuntimes(bundle.path)) {
      if (await goneWithin(process, host.timeouts.cleanup)) continue;
      host.log.warn('ending a runtime that makes a container for nobody', { namespace, id, pid: process.pid });
      await endProcess(process, host.timeouts.cleanup);
    }
  });
  await deleteByShim(host, { namespace, id, bundle: bundle.path, binary });
  await removeCgroups(bundle.cgroupsPath());
}

/** What a task whose shim is dead ended with; undefined when there never was a process. Ends what of the container still runs. */
export async function cleanAfterShim(host: TasksHost, task: Task): Promise<TaskExit | undefined> {
  const { namespace, id, binary } = task;
  const initPid = task.pid || task.bundle.initPid() || 0;
  const reply = await deleteByShim(host, { namespace, id, bundle: task.bundle.path, binary });
  const orphan = reply === undefined && initPid !== 0 && killOrphan(host, task, initPid);
  await removeCgroups(task.bundle.cgroupsPath());
  if (reply === undefined && initPid === 0) return undefined;
  return {
    containerId: id,
    id,
    pid: reply !== undefined && plausiblePid(reply.pid) ? reply.pid : initPid,
    exitStatus: reply?.exitStatus ?? (orphan ? killedStatus : unknownStatus),
    exitedAt: reply?.exitedAt ?? now(),
  };
}

/** Kills a container's first process, and by it all of its pid namespace, where the shim's binary could not; only when its cgroup says that it is this container's. */
function killOrphan(host: TasksHost, task: Task, pid: number): boolean {
  try {
    const cgroups = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n');
    if (!plausiblePid(pid) || !cgroups.some((line) => line.endsWith(`/${task.namespace}/${task.id}`))) return false;
    host.log.warn('killing a container that its shim left behind', { namespace: task.namespace, id: task.id, pid });
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

/** Removes the socket's file of a dead shim, which a kill leaves behind; one that somebody listens at, or that is none of ours, stays. */
export function unlinkDeadSocket(path: string): void {
  try {
    const stat = lstatSync(path);
    if (stat.isSocket() && stat.uid === process.getuid?.() && !isListening(path)) unlinkSync(path);
  } catch {
    // Gone, or not ours to judge.
  }
}

/** Removes a bundle whose task is over. What cannot be removed now is named in the log and tried again at the next start. */
export async function removeBundle(host: TasksHost, task: Task): Promise<void> {
  try {
    await task.bundle.remove();
  } catch (error) {
    const { namespace, id } = task;
    host.log.error('bundle not removed', { namespace, id, path: task.bundle.path, error: Failure.from(error).message });
  }
}
