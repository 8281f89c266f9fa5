/** Tasks: containers that run, through their shims. Wiring only. */
import { definePlugin, type PluginContext } from 'troupe/plugin';
import { TaskDelete, TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { Checkpoints } from './checkpoint.ts';
import { ContainerRecords } from './container-record.ts';
import { followExits } from './follow-exits.ts';
import { type TasksHost, timeoutsOf } from './host.ts';
import { type ManagerState, TaskManager } from './manager.ts';
import { tasksService } from './service.ts';

interface Config {
  /** Milliseconds, as the manifest says. */
  shim_start_timeout: number;
  shim_kill_timeout: number;
}

export default definePlugin<Config, ManagerState>({
  start(ctx) {
    const host = hostOf(ctx);
    const manager = new TaskManager(host);
    const containers = new ContainerRecords(ctx.call(ContainersDefinition));
    const checkpoints = new Checkpoints(host.state, (...contract) => ctx.call(...contract), containers);
    let following = new AbortController();
    return {
      serve: { [TasksDefinition.fullName]: tasksService(manager, containers, checkpoints, host.timeouts) },
      activate(state) {
        following = new AbortController();
        void followExits(ctx, manager.exits, AbortSignal.any([following.signal, ctx.signal]));
        manager.activate(state);
      },
      suspend() {
        following.abort();
        return manager.suspend();
      },
      stop() {
        following.abort();
        manager.stop();
      },
    };
  },
});

function hostOf(ctx: PluginContext<Config>): TasksHost {
  return {
    state: ctx.state,
    root: ctx.root,
    daemon: ctx.daemon,
    log: ctx.log,
    spawn: (...command) => ctx.spawn(...command),
    starting: (start) => ctx.starting(start),
    exclusive: (name, work) => ctx.exclusive(name, work),
    timeouts: timeoutsOf(ctx.timeouts, { start: ctx.config.shim_start_timeout, kill: ctx.config.shim_kill_timeout }),
    publishExit: (namespace, message) => ctx.publish({ namespace, topic: '/tasks/exit', type: TaskExit, message }),
    publishDelete: (namespace, message) =>
      ctx.publish({ namespace, topic: '/tasks/delete', type: TaskDelete, message }),
  };
}
