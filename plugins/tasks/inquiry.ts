/** Questions that shims have a short time to answer, because others wait beside them: how a process is, how all are, what they use. */

import { type Call, Failure } from 'troupe/plugin';
import { Metric } from 'troupe/proto/containerd/types/metric.ts';
import type { Process } from 'troupe/proto/containerd/v1/types/task.ts';
import { absent, type Filter, field, parseFilters } from '../lib/filter/filter.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { now } from '../lib/timestamp/timestamp.ts';
import { toProcess, unknownProcess } from './convert.ts';
import type { Timeouts } from './host.ts';
import type { TaskManager } from './manager.ts';
import type { ShimCallOptions } from './shim.ts';
import type { Task } from './task.ts';

/** Shims that are asked at once by List and Metrics. */
const asked = 32;

/** What is left of the caller's time, and its cancellation. */
export function limitOf(call: Call): ShimCallOptions {
  return { timeout: call.deadline === 0 ? 'none' : call.deadline - Date.now(), signal: call.signal };
}

/** A task's first process, or one of its execs. @throws Failure NotFound; a shim that is silent or dying is no failure, its process UNKNOWN. */
export async function processOf(task: Task, execId: string, call: Call, timeouts: Timeouts): Promise<Process> {
  const id = execId === '' ? task.id : execId;
  try {
    const options = shorter(limitOf(call), timeouts.state);
    return toProcess(id, await task.connection.call('state', { id: task.id, execId }, options));
  } catch (error) {
    if (Failure.is(error, 'NotFound') || Failure.is(error, 'Canceled')) throw error;
    return unknownProcess(id, execId === '' ? task.pid : 0);
  }
}

export async function listTasks(
  manager: TaskManager,
  namespace: string,
  call: Call,
  timeouts: Timeouts,
): Promise<Process[]> {
  const tasks = await manager.list(namespace);
  const processes = await eachOf(tasks, async (task) => {
    try {
      return [await processOf(task, '', call, timeouts)];
    } catch (error) {
      if (Failure.is(error, 'NotFound')) return [];
      throw error;
    }
  });
  return processes.flat();
}

/** Figures of the tasks that the filters take, as each shim gives them; one that cannot keeps nobody from the others'. */
export async function taskMetrics(
  manager: TaskManager,
  filters: readonly string[],
  call: Call,
  timeouts: Timeouts,
): Promise<Metric[]> {
  const namespace = requireNamespace(call);
  const filter = parseFilters(filters);
  const tasks = (await manager.list(namespace)).filter((task) => matches(filter, task));
  const metrics = await eachOf(tasks, async (task) => {
    try {
      const { stats } = await task.connection.call('stats', { id: task.id }, shorter(limitOf(call), timeouts.stats));
      return [Metric.fromPartial({ timestamp: now(), id: task.id, data: stats })];
    } catch (error) {
      if (Failure.is(error, 'Canceled')) throw error;
      return [];
    }
  });
  return metrics.flat();
}

function shorter(limit: ShimCallOptions, timeout: number): ShimCallOptions {
  return { ...limit, timeout: limit.timeout === 'none' ? timeout : Math.min(limit.timeout, timeout) };
}

function matches(filter: Filter, task: Task): boolean {
  return filter(([name]) => {
    if (name === 'id') return field(task.id);
    if (name === 'namespace') return field(task.namespace);
    return absent;
  });
}

/** `work` on every task, a bounded number at once, results in the tasks' order. */
async function eachOf<T>(tasks: readonly Task[], work: (task: Task) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let index = next++; index < tasks.length; index = next++) results[index] = await work(tasks[index]!);
  };
  await Promise.all(Array.from({ length: Math.min(asked, tasks.length) }, lane));
  return results;
}
