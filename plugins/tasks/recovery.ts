/** Tasks that are on disk and not in memory: after a start of the daemon all of them, after a reload those that the generation before was still making. */

import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import type { StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { Bundle, scanBundles } from './bundle.ts';
import { removeBundle } from './burial.ts';
import { settledWithin } from './settled.ts';
import type { TasksHost } from './host.ts';
import { reconnect } from './reconnect.ts';
import { ShimLog } from './shim-log.ts';
import { Task } from './task.ts';

/** What is done with what is found; every function is called under the task's lock. */
export interface Finder {
  /** Known to be in memory, or about to be. */
  knows(namespace: string, id: string): boolean;
  /** It is there, though nothing is known of its shim yet. */
  found(task: Task): void;
  alive(task: Task, state: StateResponse): void;
  /** The shim has no such task. */
  empty(task: Task): Promise<void>;
  dead(task: Task, reason: string): Promise<void>;
}

/** Pauses, ms, between looks at the disk after a reload: together longer than a call may run on the generation before. */
const rescanPauses = [2000, 15_000, 120_000];

/** Pauses between two questions to a suspect, ms: doubled from the first to the second. */
const suspectPause = { first: 1000, longest: 30_000 };

export class Recovery {
  readonly #host: TasksHost;
  readonly #finder: Finder;
  /** Found on disk and not heard of yet. */
  readonly #loading = new Map<string, Promise<void>>();

  constructor(host: TasksHost, finder: Finder) {
    this.#host = host;
    this.#finder = finder;
  }

  /** Resolves, never rejects, when the task has been judged that is being looked for under this name; undefined when none is. */
  pending(namespace: string, id: string): Promise<void> | undefined {
    return this.#loading.get(`${namespace}/${id}`);
  }

  /** Resolves, never rejects, when all have been judged that are being looked for. */
  async settled(): Promise<void> {
    await Promise.all(this.#loading.values());
  }

  get idle(): boolean {
    return this.#loading.size === 0;
  }

  /** Takes in the bundles on disk that are not known; returns what there is of trash. `serving` aborts when this generation no longer serves. */
  scan(serving: AbortSignal): string[] {
    const { bundles, trash } = scanBundles(this.#host.state);
    for (const { namespace, id } of bundles) this.look(namespace, id, serving);
    return trash;
  }

  /** Takes in the bundle of one name, if there is one that is not known. */
  look(namespace: string, id: string, serving: AbortSignal): void {
    const key = `${namespace}/${id}`;
    if (this.#loading.has(key) || this.#finder.knows(namespace, id)) return;
    const bundle = new Bundle(this.#host.state, this.#host.root, namespace, id);
    if (!bundle.exists()) return;
    const loaded = this.#exclusively(bundle, () => this.#load(bundle, serving));
    const judged = loaded
      .catch((error) => {
        this.#host.log.error('bundle not loaded', { namespace, id, error: Failure.from(error).message });
      })
      .finally(() => this.#loading.delete(key));
    this.#loading.set(key, judged);
  }

  /** After a reload: what the generation before was still making at the first look is found when a client asks for it, or else by and by. */
  async rescan(serving: AbortSignal): Promise<void> {
    for (const pause of rescanPauses) {
      await delay(pause, undefined, { signal: serving, ref: false }).catch(() => {});
      if (serving.aborted) return;
      this.scan(serving);
    }
  }

  /** Asks a suspect, less and less often, until it answers or its socket closes. */
  async askAgain(task: Task, serving: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => serving.addEventListener('abort', () => resolve(), { once: true }));
    let pause = suspectPause.first;
    for (;;) {
      await settledWithin(Promise.race(task.shim === undefined ? [aborted] : [task.shim.closed, aborted]), pause);
      if (serving.aborted || task.condition !== 'suspect') return;
      pause = Math.min(pause * 2, suspectPause.longest);
      const settled = await this.#exclusively(task.bundle, async () => {
        return serving.aborted || task.condition !== 'suspect' || (await this.#judge(task, serving));
      });
      if (settled) return;
    }
  }

  async #load(bundle: Bundle, serving: AbortSignal): Promise<void> {
    const { namespace, id } = bundle;
    // While its lock was waited for, another generation may have finished with it.
    if (serving.aborted || this.#finder.knows(namespace, id) || !bundle.exists()) return;
    const binary = bundle.binary();
    if (binary === undefined) {
      this.#host.log.info('removing a bundle in which no shim was started', { namespace, id });
      await removeBundle(this.#host, new Task(bundle, ''));
      return;
    }
    const task = new Task(bundle, binary);
    try {
      task.log = new ShimLog(bundle, this.#host.log);
    } catch (error) {
      this.#host.log.warn('shim log cannot be opened', { namespace, id, error: Failure.from(error).message });
    }
    this.#finder.found(task);
    if ((await this.#judge(task, serving)) || serving.aborted) return;
    this.#host.log.warn('shim does not answer; it will be asked again', { namespace, id });
    task.condition = 'suspect';
    void this.askAgain(task, serving);
  }

  /** Looks for the task's shim and has done what that asks for. False when the shim is there and silent. */
  async #judge(task: Task, serving: AbortSignal): Promise<boolean> {
    const { namespace, id } = task;
    const found = await reconnect(this.#host, task);
    if (task.condition === 'gone' || serving.aborted) return true;
    switch (found.verdict) {
      case 'silent':
        return false;
      case 'alive':
        if (task.condition === 'suspect') this.#host.log.info('shim answers again', { namespace, id });
        task.condition = 'running';
        this.#finder.alive(task, found.state);
        return true;
      case 'empty':
        this.#host.log.info('ending a shim that was never given its task', { namespace, id });
        await this.#finder.empty(task);
        return true;
      case 'dead':
        await this.#finder.dead(task, found.reason);
        return true;
    }
  }

  #exclusively<T>({ namespace, id }: Bundle, work: () => Promise<T>): Promise<T> {
    return this.#host.exclusive(lockOf(namespace, id), work);
  }
}

/** Name of the lock under which a task's existence changes, one change at a time over all generations: a Create may still run in the one before. */
export function lockOf(namespace: string, id: string): string {
  return `task:${namespace}/${id}`;
}
