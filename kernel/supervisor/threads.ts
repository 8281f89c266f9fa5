/**
 * Which worker a plugin lives in. Each has its own unless the config puts several into one; those are one unit of failure, and a member that is
 * reloaded moves to a worker of its own, since modules never leave a worker's memory.
 */
import type { Manifest } from '../plan/index.ts';
import type { HostedPlugin, ToKernel, WorkerInit } from '../sdk/protocol.ts';
import { WorkerHandle } from './worker-handle.ts';

/** What a new worker is told beside its plugins. */
export type WorkerBase = Omit<WorkerInit, 'page' | 'channel' | 'thread' | 'plugins'>;

export interface Member {
  readonly manifest: Manifest;
  /** What a worker that is made now is told about it. */
  hosted(): HostedPlugin;
}

export class Threads {
  readonly #base: () => WorkerBase;
  readonly #members = new Map<string, Member[]>();
  readonly #live = new Map<string, WorkerHandle>();
  readonly #handles = new Set<WorkerHandle>();
  readonly #onMessage: (message: ToKernel, from: WorkerHandle) => void;

  constructor(base: () => WorkerBase, onMessage: (message: ToKernel, from: WorkerHandle) => void) {
    this.#base = base;
    this.#onMessage = onMessage;
  }

  join(thread: string, member: Member): void {
    const members = this.#members.get(thread) ?? [];
    members.push(member);
    this.#members.set(thread, members);
  }

  /** Every worker that has not ended, with its handle. */
  get all(): ReadonlySet<WorkerHandle> {
    return this.#handles;
  }

  /** The worker of that name; made, with all its members, when it is not there. */
  shared(thread: string): WorkerHandle {
    const live = this.#live.get(thread);
    if (live !== undefined && !live.gone) return live;
    const members = this.#members.get(thread) ?? [];
    const handle = this.#spawn(thread, members);
    this.#live.set(thread, handle);
    return handle;
  }

  /** A worker for one generation of one plugin and nobody else. */
  own(member: Member, thread: string): WorkerHandle {
    return this.#spawn(thread, [member]);
  }

  #spawn(thread: string, members: readonly Member[]): WorkerHandle {
    const hardMb = Math.max(...members.map((member) => member.manifest.limits.hardMb));
    const handle: WorkerHandle = new WorkerHandle(
      { ...this.#base(), thread, plugins: members.map((member) => member.hosted()) },
      { hardMb },
      (message) => this.#onMessage(message, handle),
    );
    this.#handles.add(handle);
    void handle.exited.then(() => this.#handles.delete(handle));
    return handle;
  }
}
