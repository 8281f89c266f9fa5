/** One task: its bundle, its shim, and what is known of both. */

import { Failure } from 'troupe/plugin';
import type { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import type { Bundle } from './bundle.ts';
import type { Shim } from './shim.ts';
import type { ShimLog } from './shim-log.ts';
import type { ShimPid } from './shim-pid.ts';

/**
 * `running`: its shim answers. `suspect`: its shim is there and silent; it is asked again until it answers or its socket closes.
 * `gone`: deleted, or its shim died and everything of it has been taken away.
 */
export type TaskCondition = 'running' | 'suspect' | 'gone';

export class Task {
  readonly bundle: Bundle;
  readonly binary: string;
  condition: TaskCondition = 'running';
  /** Undefined for a suspect that no connection could be made to. */
  shim: Shim | undefined;
  log: ShimLog | undefined;
  /** Of the container's first process; 0 when the shim never said. */
  pid = 0;
  shimPid: ShimPid | undefined;
  /** Resolves once the task is gone, with its exit when its shim did not live to tell it. */
  readonly ended: Promise<TaskExit | undefined>;
  readonly #end: (exit: TaskExit | undefined) => void;

  constructor(bundle: Bundle, binary: string) {
    this.bundle = bundle;
    this.binary = binary;
    const { promise, resolve } = Promise.withResolvers<TaskExit | undefined>();
    this.ended = promise;
    this.#end = resolve;
  }

  get namespace(): string {
    return this.bundle.namespace;
  }

  get id(): string {
    return this.bundle.id;
  }

  /** The connection to ask. @throws Failure Unavailable while there is none. */
  get connection(): Shim {
    if (this.shim === undefined) {
      const name = `task ${this.id} in namespace "${this.namespace}"`;
      throw new Failure('Unavailable', `shim of ${name} does not answer: unavailable`);
    }
    return this.shim;
  }

  /** It is over: lets go of descriptors and tells who waits. */
  finish(exit: TaskExit | undefined): void {
    this.condition = 'gone';
    this.letGo();
    this.#end(exit);
  }

  /** Lets go of descriptors; shim and container live on. */
  letGo(): void {
    this.shim?.close();
    this.log?.close();
  }
}
