/**
 * The tasks of the daemon, by namespace and id: made, found again after a start, and taken away when they are deleted or their shim dies.
 * What changes a task's existence holds its lock; what only asks the shim does not.
 */

import { relative } from 'node:path';
import { Failure, failpoint } from 'troupe/plugin';
import type { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import type { DeleteResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { Bundle, removeTree, sweepWork } from './bundle.ts';
import { cleanAfterShim, clearUnmade, endShim, removeBundle, retireShim, unlinkDeadSocket } from './burial.ts';
import { settledWithin } from './settled.ts';
import { type CreateOptions, createTask } from './creation.ts';
import { ExitDelivery } from './exit-delivery.ts';
import type { Exit } from './exits.ts';
import type { TasksHost } from './host.ts';
import { addressOf } from './reconnect.ts';
import { lockOf, Recovery } from './recovery.ts';
import type { ShimCallOptions } from './shim.ts';
import { shimPid } from './shim-pid.ts';
import type { Task } from './task.ts';

/** What one generation hands to the next. The tasks themselves are found on disk. */
export interface ManagerState {
  readonly exits: readonly Exit[];
}

export class TaskManager {
  readonly exits: ExitDelivery;
  /** Resolves when leftovers of a life before have been removed. */
  swept: Promise<void> = Promise.resolve();
  readonly #host: TasksHost;
  readonly #tasks = new Map<string, Task>();
  readonly #recovery: Recovery;
  readonly #creating = new Map<string, Promise<unknown>>();
  readonly #unsticking = new Set<string>();
  #serving: AbortController | undefined;

  constructor(host: TasksHost) {
    this.#host = host;
    this.exits = new ExitDelivery(host);
    this.#recovery = new Recovery(host, {
      knows: (namespace, id) => this.#tasks.has(keyOf(namespace, id)) || this.#creating.has(keyOf(namespace, id)),
      found: (task) => this.#tasks.set(keyOf(task.namespace, task.id), task),
      alive: (task, state) => {
        this.#watch(task);
        this.exits.expect(task, state);
      },
      empty: (task) => this.#retire(task, () => clearUnmade(this.#host, task)),
      dead: (task, reason) => this.#clean(task, reason),
    });
  }

  /** Takes charge: finds every shim again, each in its own time; calls for a task that is still looked for wait for it, the start of the daemon does not. */
  activate(state: ManagerState | undefined): void {
    this.#serving = new AbortController();
    const { signal } = this.#serving;
    const resumed = this.#tasks.size > 0;
    if (state !== undefined) this.exits.ledger.import(state.exits);
    for (const task of this.#tasks.values()) {
      task.log?.resume();
      if (task.condition === 'suspect') void this.#recovery.askAgain(task, signal);
      else if (!task.shim?.alive) void this.#bury(task, 'shim disconnected');
    }
    const trash = this.#recovery.scan(signal);
    // What a generation before has under way is not trash.
    if (state === undefined && !resumed) this.swept = this.#sweep(trash);
    else void this.#recovery.rescan(signal);
  }

  /** Lets go: no timers, no cleaning up, no reading of logs. Connections stay, for the calls that still wait on them. */
  suspend(): ManagerState {
    this.#serving?.abort();
    this.#serving = undefined;
    this.exits.pause();
    for (const task of this.#tasks.values()) task.log?.pause();
    return { exits: this.exits.ledger.export() };
  }

  /** Closes every connection; shims and containers live on. */
  stop(): void {
    this.suspend();
    for (const task of this.#tasks.values()) task.letGo();
    this.#tasks.clear();
  }

  /** Resolves when every bundle that was found on disk has been judged. */
  loaded(): Promise<void> {
    return this.#recovery.settled();
  }

  /** @throws Failure NotFound */
  async find(namespace: string, id: string): Promise<Task> {
    const key = keyOf(namespace, id);
    if (this.#serving !== undefined) this.#recovery.look(namespace, id, this.#serving.signal);
    const pending = this.#recovery.pending(namespace, id);
    if (pending !== undefined) await pending;
    else if (!this.#tasks.has(key)) await this.#creating.get(key)?.catch(() => {});
    const task = this.#tasks.get(key);
    if (task === undefined) throw new Failure('NotFound', `task ${id} not found: not found`);
    return task;
  }

  /** Tasks of one namespace, or all. Waits a moment, not longer than a State call may take, for those that are still looked for. */
  async list(namespace?: string): Promise<Task[]> {
    if (this.#serving !== undefined) this.#unstick(this.#recovery.scan(this.#serving.signal));
    if (!this.#recovery.idle) await settledWithin(this.loaded(), this.#host.timeouts.state);
    return [...this.#tasks.values()].filter((task) => namespace === undefined || task.namespace === namespace);
  }

  /** @throws Failure AlreadyExists, or what the shim says; leaves nothing behind then. */
  async create(options: CreateOptions): Promise<Task> {
    const { namespace, id } = options;
    const key = keyOf(namespace, id);
    const created = this.#exclusively(namespace, id, async () => {
      if (this.#tasks.has(key)) throw new Failure('AlreadyExists', `task ${id}: already exists`);
      const bundle = new Bundle(this.#host.state, this.#host.root, namespace, id);
      const task = await createTask(this.#host, bundle, options, (path) => this.#usesSocket(path));
      this.exits.ledger.begin(namespace, id);
      this.#tasks.set(key, task);
      this.#watch(task);
      return task;
    });
    this.#creating.set(key, created);
    try {
      return await created;
    } finally {
      if (this.#creating.get(key) === created) this.#creating.delete(key);
    }
  }

  /** Deletes a stopped task. @throws Failure NotFound, FailedPrecondition while it runs. */
  async delete(namespace: string, id: string, options: ShimCallOptions): Promise<DeleteResponse> {
    const task = await this.find(namespace, id);
    const reply = await this.#exclusively(namespace, id, async () => {
      if (task.condition === 'gone') throw new Failure('NotFound', `task ${id} not found: not found`);
      return this.#delete(task, options);
    });
    if (reply !== undefined) return reply;
    const exit = await this.whenEnded(task, options.signal);
    if (exit === undefined) throw new Failure('NotFound', `task ${id} not found: not found`);
    return exit;
  }

  /** The exit of a task whose shim died, once that has been cleaned up. @throws the signal's reason. */
  async whenEnded(task: Task, signal: AbortSignal | undefined): Promise<TaskExit | undefined> {
    if (signal === undefined) return task.ended;
    await Promise.race([task.ended, abortion(signal)]);
    signal.throwIfAborted();
    return task.ended;
  }

  /**
   * Signals the task. A SIGKILL that the shim neither confirms nor refuses, while it answers nothing else either, is carried out without it: the shim is ended,
   * and its binary cleans up. Nothing less than a SIGKILL says that the container may die of it.
   */
  async kill(
    task: Task,
    request: { execId: string; signal: number; all: boolean },
    options: ShimCallOptions,
  ): Promise<void> {
    const final = request.signal === 9 && request.execId === '';
    const { kill } = this.#host.timeouts;
    const timeout = final ? Math.min(kill, options.timeout === 'none' ? kill : options.timeout) : options.timeout;
    try {
      await task.connection.call('kill', { id: task.id, ...request }, { ...options, timeout });
    } catch (error) {
      const silent = Failure.is(error, 'DeadlineExceeded') || task.shim === undefined;
      if (!final || !silent || (await this.#answers(task)) || this.#shared(task)) throw error;
      if (!(await endShim(this.#host, task))) throw error;
      await this.#bury(task, 'shim did not answer a SIGKILL of its container');
    }
  }

  async #delete(task: Task, options: ShimCallOptions): Promise<DeleteResponse | undefined> {
    await this.exits.publishOverdue(task);
    const shim = task.connection;
    let reply: DeleteResponse | undefined;
    let failure: Failure | undefined;
    try {
      reply = await shim.call('delete', { id: task.id, execId: '' }, options);
    } catch (error) {
      if (!shim.alive) return undefined; // Its death is noticed elsewhere, and told by `ended`.
      if (!Failure.is(error, 'NotFound')) throw error;
      failure = error;
    }
    const delivered = reply === undefined ? undefined : this.exits.delivered(task, reply);
    try {
      failpoint('tasks.shim.deleted');
    } finally {
      // Its shim does not have it any more, and nobody would ask for it again.
      await this.#retire(task);
    }
    await delivered;
    if (failure !== undefined) throw failure;
    return reply;
  }

  #exclusively<T>(namespace: string, id: string, work: () => Promise<T>): Promise<T> {
    return this.#host.exclusive(lockOf(namespace, id), work);
  }

  #watch(task: Task): void {
    const { shim } = task;
    if (shim === undefined) return;
    if (task.shimPid === undefined) void this.#learnShimPid(task);
    void shim.closed.then(() => {
      if (this.#serving !== undefined && task.condition !== 'gone' && task.shim === shim)
        void this.#bury(task, 'shim disconnected');
    });
  }

  async #learnShimPid(task: Task): Promise<void> {
    try {
      const { shimPid: claimed } = await task.connection.call(
        'connect',
        { id: task.id },
        { timeout: this.#host.timeouts.load },
      );
      task.shimPid = shimPid(claimed, task.binary);
    } catch {
      // Then it cannot be ended by force; everything else works.
    }
  }

  async #bury(task: Task, reason: string): Promise<void> {
    await this.#exclusively(task.namespace, task.id, async () => {
      if (task.condition !== 'gone' && this.#serving !== undefined) await this.#clean(task, reason);
    });
  }

  async #clean(task: Task, reason: string): Promise<void> {
    const { namespace, id } = task;
    this.#host.log.warn('cleaning up after a dead shim', { namespace, id, reason });
    await this.exits.publishOverdue(task);
    task.condition = 'gone';
    await this.#tried(task, async () => this.#shared(task) || endShim(this.#host, task));
    const exit = await this.#tried(task, () => cleanAfterShim(this.#host, task));
    await this.#tried(task, async () => failpoint('tasks.shim.cleaned'));
    await this.#forget(task, exit);
    try {
      failpoint('tasks.exit.publish');
      if (exit === undefined) return;
      await this.exits.publish(task, exit);
      const { pid, exitStatus, exitedAt } = exit;
      await this.#host.publishDelete(namespace, { containerId: id, id: '', pid, exitStatus, exitedAt });
    } catch (error) {
      this.#host.log.error('end not published', { namespace, id, error: Failure.from(error).message });
    }
  }

  /** Takes away a task that its shim has no more, or never had: then `clear` takes away what may be of it all the same. */
  async #retire(task: Task, clear?: () => Promise<void>): Promise<void> {
    // From here on the end of the connection is no news.
    task.condition = 'gone';
    await this.#tried(task, () => retireShim(this.#host, task, this.#shared(task)));
    if (clear !== undefined) await this.#tried(task, clear);
    await this.#forget(task, undefined);
  }

  /** A step of taking a task away. None keeps the next one from being tried: one that is gone and not forgotten would keep its name until the next start. */
  async #tried<T>({ namespace, id }: Task, step: () => Promise<T>): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      this.#host.log.error('cleaning up failed', { namespace, id, error: Failure.from(error).message });
      return undefined;
    }
  }

  async #forget(task: Task, exit: TaskExit | undefined): Promise<void> {
    const { path } = task.shim?.address ?? addressOf(this.#host, task);
    await removeBundle(this.#host, task);
    unlinkDeadSocket(path);
    this.exits.forget(task);
    const key = keyOf(task.namespace, task.id);
    if (this.#tasks.get(key) === task) this.#tasks.delete(key);
    task.finish(exit);
  }

  async #answers(task: Task): Promise<boolean> {
    try {
      await task.connection.call('state', { id: task.id, execId: '' }, { timeout: this.#host.timeouts.state });
      return true;
    } catch (error) {
      return !Failure.is(error, 'DeadlineExceeded') && !Failure.is(error, 'Unavailable');
    }
  }

  /** Another task has the same shim, which must then not be ended for this one. */
  #shared(task: Task): boolean {
    return task.shim !== undefined && this.#usesSocket(task.shim.address.path, task);
  }

  #usesSocket(path: string, except?: Task): boolean {
    return [...this.#tasks.values()].some((task) => task !== except && task.shim?.address.path === path);
  }

  /**
   * Takes away bundles that got stuck on their way out: with no file to open left, say. Nobody waits for it, and whoever asks for tasks sets it off. Checkpoints,
   * which lie one level higher, may be in use.
   */
  #unstick(trash: readonly string[]): void {
    const { state, root, log } = this.#host;
    for (const path of trash) {
      const [namespace, name] = relative(state, path).split('/');
      if (namespace === undefined || name === undefined || this.#unsticking.has(path)) continue;
      this.#unsticking.add(path);
      const id = name.slice(1);
      this.#exclusively(namespace, id, async () => {
        const bundle = new Bundle(state, root, namespace, id);
        // The bundle last: it is what brings anybody here.
        if (!this.#tasks.has(keyOf(namespace, id)) && !bundle.exists()) await removeTree(bundle.work);
        await removeTree(path);
      })
        .catch((error) => log.warn('bundle is still not removed', { path, error: Failure.from(error).message }))
        .finally(() => this.#unsticking.delete(path));
    }
  }

  async #sweep(trash: readonly string[]): Promise<void> {
    const { state, root, log } = this.#host;
    try {
      for (const path of trash) await removeTree(path);
      await this.loaded();
      const owned = (namespace: string, id: string): boolean => {
        const key = keyOf(namespace, id);
        return this.#tasks.has(key) || this.#creating.has(key) || this.#serving === undefined;
      };
      await sweepWork(state, root, owned);
    } catch (error) {
      log.warn('leftovers of tasks not removed', { error: Failure.from(error).message });
    }
  }
}

function keyOf(namespace: string, id: string): string {
  return `${namespace}/${id}`;
}

function abortion(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
