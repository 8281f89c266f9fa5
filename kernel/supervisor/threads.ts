/**
 * Which worker a plugin lives in. Each has its own unless the config puts several into one; those are one unit of failure, and a member that is
 * reloaded or started again moves to a worker of its own, since modules never leave a worker's memory.
 */
import type { Manifest } from '../plan/index.ts';
import type { HostedPlugin, ToKernel, WorkerInit } from '../sdk/protocol.ts';
import { type MakeWorker, makeWorker, type WorkerHandle } from './worker-handle.ts';

/** What a new worker is told beside its plugins. */
export type WorkerBase = Omit<WorkerInit, 'page' | 'channel' | 'thread' | 'plugins'>;

export interface Member {
  readonly id: string;
  readonly manifest: Manifest;
  /** What a worker that is made now is told about it. */
  hosted(): HostedPlugin;
}

interface SharedWorker {
  readonly handle: WorkerHandle;
  /** Members that have not been started in it yet. */
  readonly unclaimed: Set<Member>;
}

export class Threads {
  readonly #base: () => WorkerBase;
  readonly #members = new Map<string, Set<Member>>();
  readonly #shared = new Map<string, SharedWorker>();
  readonly #handles = new Set<WorkerHandle>();
  readonly #onMessage: (message: ToKernel, from: WorkerHandle) => void;
  readonly #make: MakeWorker;

  constructor(
    base: () => WorkerBase,
    onMessage: (message: ToKernel, from: WorkerHandle) => void,
    make: MakeWorker = makeWorker,
  ) {
    this.#base = base;
    this.#onMessage = onMessage;
    this.#make = make;
  }

  join(thread: string, member: Member): void {
    const members = this.#members.get(thread) ?? new Set();
    members.add(member);
    this.#members.set(thread, members);
  }

  leave(thread: string, member: Member): void {
    this.#members.get(thread)?.delete(member);
  }

  /** Every worker that has not ended, with its handle. */
  get all(): ReadonlySet<WorkerHandle> {
    return this.#handles;
  }

  /**
   * The shared worker of that name, for one start of this member; made, with all its members, when it is not there. Undefined when the member has been
   * started in it before: then it needs a worker of its own.
   */
  shared(thread: string, member: Member): WorkerHandle | undefined {
    const live = this.#shared.get(thread);
    if (live !== undefined && !live.handle.gone) return live.unclaimed.delete(member) ? live.handle : undefined;
    const members = [...(this.#members.get(thread) ?? [])];
    const handle = this.#spawn(thread, members);
    this.#shared.set(thread, { handle, unclaimed: new Set(members.filter((each) => each !== member)) });
    return handle;
  }

  /** A worker for one generation of one plugin and nobody else. */
  own(member: Member, thread: string): WorkerHandle {
    return this.#spawn(thread, [member]);
  }

  #spawn(thread: string, members: readonly Member[]): WorkerHandle {
    const sum = (pick: (limits: Manifest['limits']) => number) =>
      members.reduce((total, { manifest }) => total + pick(manifest.limits), 0);
    const handle: WorkerHandle = this.#make(
      { ...this.#base(), thread, plugins: members.map((member) => member.hosted()) },
      { softMb: sum((limits) => limits.softMb), hardMb: sum((limits) => limits.hardMb) },
      (message) => this.#onMessage(message, handle),
    );
    this.#handles.add(handle);
    void handle.exited.then(() => this.#handles.delete(handle));
    return handle;
  }
}
