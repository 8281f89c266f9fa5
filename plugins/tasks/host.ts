/** What the task manager needs of its plugin's context, and no more, so that it runs in a test without a daemon. */

import type { DaemonInfo, Log, PluginContext } from 'troupe/plugin';
import type { TaskDelete, TaskExit } from 'troupe/proto/containerd/events/task.ts';

export interface TasksHost {
  /** `<state>/io.containerd.runtime.v2.task`: bundles. */
  readonly state: string;
  /** `<root>/io.containerd.runtime.v2.task`: work directories of shims. */
  readonly root: string;
  readonly daemon: Pick<DaemonInfo, 'address' | 'ttrpcAddress' | 'publishBinary' | 'version'>;
  readonly log: Log;
  readonly spawn: PluginContext['spawn'];
  readonly starting: PluginContext['starting'];
  /** One holder of a name at a time, over all generations of the plugin. */
  exclusive<T>(name: string, work: () => Promise<T>): Promise<T>;
  readonly timeouts: Timeouts;
  /** Publishes `/tasks/exit` and `/tasks/delete` of tasks whose shim can no longer do so itself. */
  publishExit(namespace: string, event: TaskExit): Promise<void>;
  publishDelete(namespace: string, event: TaskDelete): Promise<void>;
}

/** Milliseconds. */
export interface Timeouts {
  /** Of connecting to a shim again after a start of the daemon. */
  readonly load: number;
  /** Of each step of cleaning up: the shim's `delete` invocation, a signal's effect. */
  readonly cleanup: number;
  readonly shutdown: number;
  readonly state: number;
  readonly stats: number;
  /** Of the shim's `start` invocation. */
  readonly start: number;
  /** Of a SIGKILL that the shim does not confirm, before the shim itself is ended. */
  readonly kill: number;
}

/** The config's `[timeouts]`, with containerd's defaults where it is silent. */
export function timeoutsOf(
  configured: { readonly [name: string]: number },
  own: { start: number; kill: number },
): Timeouts {
  const named = (name: string, otherwise: number): number => configured[`io.containerd.timeout.${name}`] || otherwise;
  return {
    load: named('shim.load', 5000),
    cleanup: named('shim.cleanup', 5000),
    shutdown: named('shim.shutdown', 3000),
    state: named('task.state', 2000),
    stats: named('metrics.shimstats', 2000),
    start: own.start,
    kill: own.kill,
  };
}
