/** containerd.services.tasks.v1.Tasks: what a client asks of a task is asked of its shim. */

import { type Call, Failure, failpoint, type Service } from 'troupe/plugin';
import type { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { validateIdentifier } from '../lib/identifier/identifier.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import type { Checkpoints } from './checkpoint.ts';
import type { ContainerRecords } from './container-record.ts';
import type { Timeouts } from './host.ts';
import { limitOf, listTasks, processOf, taskMetrics } from './inquiry.ts';
import type { TaskManager } from './manager.ts';
import { requireExecId, requireMounts, requirePath } from './request.ts';
import type { Task } from './task.ts';
import { waitForExit } from './wait.ts';

export function tasksService(
  manager: TaskManager,
  containers: ContainerRecords,
  checkpoints: Checkpoints,
  timeouts: Timeouts,
): Service<typeof TasksDefinition> {
  /** The task that a request names. NotFound says whether it is the container or its task that is not there. */
  async function taskOf(request: { readonly containerId: string }, call: Call): Promise<Task> {
    const namespace = requireNamespace(call);
    validateIdentifier(request.containerId);
    try {
      return await manager.find(namespace, request.containerId);
    } catch (error) {
      if (Failure.is(error, 'NotFound')) await containers.get(request.containerId, call);
      throw error;
    }
  }

  return {
    async create(request, call) {
      const namespace = requireNamespace(call);
      const { containerId: id, stdin, stdout, stderr, terminal } = request;
      validateIdentifier(id);
      for (const path of [stdin, stdout, stderr]) requirePath(path);
      const rootfs = requireMounts(request.rootfs);
      const container = await containers.get(id, call);
      const checkpoint = await checkpoints.restore(request.checkpoint, call);
      try {
        const task = await manager.create({
          namespace,
          id,
          spec: container.spec?.value ?? new Uint8Array(0),
          runtime: request.runtimePath || (container.runtime?.name ?? ''),
          runtimeOptions: container.runtime?.options,
          taskOptions: request.options,
          rootfs,
          stdin,
          stdout,
          stderr,
          terminal,
          checkpoint: checkpoint?.path ?? '',
          ...limitOf(call),
        });
        failpoint('tasks.create.reply');
        return { containerId: id, pid: task.pid };
      } finally {
        await checkpoint?.remove();
      }
    },

    async start(request, call) {
      const task = await taskOf(request, call);
      const { pid } = await task.connection.call('start', { id: task.id, execId: request.execId }, limitOf(call));
      failpoint('tasks.start.reply');
      return { pid };
    },

    async delete(request, call) {
      const task = await taskOf(request, call);
      const { pid, exitStatus, exitedAt } = await manager.delete(task.namespace, task.id, limitOf(call));
      failpoint('tasks.delete.reply');
      return { id: '', pid, exitStatus, exitedAt };
    },

    async deleteProcess(request, call) {
      const task = await taskOf(request, call);
      const { execId } = request;
      if (execId === '') throw new Failure('InvalidArgument', 'exec id must not be empty: invalid argument');
      const { pid, exitStatus, exitedAt } = await task.connection.call(
        'delete',
        { id: task.id, execId },
        limitOf(call),
      );
      return { id: execId, pid, exitStatus, exitedAt };
    },

    async get(request, call) {
      const task = await taskOf(request, call);
      return { process: await processOf(task, request.execId, call, timeouts) };
    },

    list: async (_request, call) => ({ tasks: await listTasks(manager, requireNamespace(call), call, timeouts) }),

    async kill(request, call) {
      const task = await taskOf(request, call);
      const { execId, signal, all } = request;
      await manager.kill(task, { execId, signal, all: all && execId === '' }, limitOf(call));
      return {};
    },

    async exec(request, call) {
      const task = await taskOf(request, call);
      const { execId, stdin, stdout, stderr, terminal, spec } = request;
      requireExecId(execId);
      for (const path of [stdin, stdout, stderr]) requirePath(path);
      await task.connection.call('exec', { id: task.id, execId, stdin, stdout, stderr, terminal, spec }, limitOf(call));
      return {};
    },

    async resizePty(request, call) {
      const task = await taskOf(request, call);
      const { execId, width, height } = request;
      await task.connection.call('resizePty', { id: task.id, execId, width, height }, limitOf(call));
      return {};
    },

    async closeIO(request, call) {
      const task = await taskOf(request, call);
      const { execId, stdin } = request;
      if (stdin) await task.connection.call('closeIO', { id: task.id, execId, stdin }, limitOf(call));
      return {};
    },

    async pause(request, call) {
      const task = await taskOf(request, call);
      await task.connection.call('pause', { id: task.id }, limitOf(call));
      return {};
    },

    async resume(request, call) {
      const task = await taskOf(request, call);
      await task.connection.call('resume', { id: task.id }, limitOf(call));
      return {};
    },

    async listPids(request, call) {
      const task = await taskOf(request, call);
      const { processes } = await task.connection.call('pids', { id: task.id }, limitOf(call));
      return { processes };
    },

    async checkpoint(request, call) {
      const task = await taskOf(request, call);
      return { descriptors: await checkpoints.save(task, request.options, call, limitOf(call)) };
    },

    async update(request, call) {
      const task = await taskOf(request, call);
      const { resources, annotations } = request;
      await task.connection.call('update', { id: task.id, resources, annotations }, limitOf(call));
      return {};
    },

    metrics: async (request, call) => ({ metrics: await taskMetrics(manager, request.filters, call, timeouts) }),

    wait: (request, call) => waitForExit(manager, () => taskOf(request, call), request, call),
  };
}
