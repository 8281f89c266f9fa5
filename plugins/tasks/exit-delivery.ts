/**
 * Seeing to it that every exit is published: by the shim as a rule, and here when the shim gave up (it tries for 15 s while there is no daemon), ended
 * with the event still in its queue, or is dead.
 */

import { EventEmitter, once } from 'node:events';
import { Failure } from 'troupe/plugin';
import type { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import type { DeleteResponse, StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { settledWithin } from './settled.ts';
import { type Exit, ExitLedger } from './exits.ts';
import type { TasksHost } from './host.ts';
import type { Task } from './task.ts';

/** A shim gives up an event that it could not deliver after five tries with 1, 2, … 5 s between them; after this much, ms, it is the daemon's to publish. */
const undeliveredAfter = 20_000;

/** How long, ms, a Delete waits for an exit event that is on its way: longer than that takes, shorter than a shim's next try. */
const undeliveredAtDelete = 500;

export class ExitDelivery {
  readonly ledger = new ExitLedger();
  /** Exits that shims publish are being told to `note`; without that nothing can be said of one that was not. */
  watching = false;
  readonly #host: TasksHost;
  readonly #noted = new EventEmitter();
  readonly #overdue = new Map<Task, { readonly timer: NodeJS.Timeout; readonly exit: TaskExit }>();

  constructor(host: TasksHost) {
    this.#host = host;
    // One listener per task that is being deleted right now.
    this.#noted.setMaxListeners(0);
  }

  /** Takes an exit that its shim has published. */
  note(exit: Exit): void {
    this.ledger.note(exit);
    this.#noted.emit(keyOf(exit.namespace, exit.event.containerId));
  }

  /** Publishes an exit unless that has been done. Never rejects: what comes after an exit must not wait for its being told. */
  async publish(task: Task, event: TaskExit): Promise<void> {
    const { namespace, id } = task;
    try {
      await this.ledger.publishOnce({ namespace, event }, (...exit) => this.#host.publishExit(...exit));
    } catch (error) {
      this.#host.log.error('exit not published', { namespace, id, error: Failure.from(error).message });
    }
  }

  /** A task that is found stopped after a start: its exit may have been published before, may still come from the shim, or be lost. */
  expect(task: Task, state: StateResponse): void {
    if (state.status !== Status.STOPPED) return;
    const { pid, exitStatus, exitedAt } = state;
    const at = exitedAt === undefined ? 0 : Number(exitedAt.seconds) * 1000;
    const wait = Math.min(undeliveredAfter, Math.max(0, at + undeliveredAfter - Date.now()));
    const timer = setTimeout(() => void this.publishOverdue(task), wait);
    timer.unref();
    this.#overdue.set(task, { timer, exit: { containerId: task.id, id: task.id, pid, exitStatus, exitedAt } });
  }

  /** Waits for it no longer. */
  async publishOverdue(task: Task): Promise<void> {
    const overdue = this.#overdue.get(task);
    if (overdue === undefined) return;
    this.forget(task);
    await this.publish(task, overdue.exit);
  }

  /** A shim that ends takes with it the events that it could not deliver, so a deleted task's exit is waited for, and published here when it does not come. */
  async delivered(task: Task, { pid, exitStatus, exitedAt }: DeleteResponse): Promise<void> {
    const { namespace, id } = task;
    const event: TaskExit = { containerId: id, id, pid, exitStatus, exitedAt };
    if (!this.watching || this.ledger.has(namespace, event)) return;
    await settledWithin(once(this.#noted, keyOf(namespace, id)), undeliveredAtDelete);
    await this.publish(task, event);
  }

  forget(task: Task): void {
    const overdue = this.#overdue.get(task);
    if (overdue !== undefined) clearTimeout(overdue.timer);
    this.#overdue.delete(task);
  }

  /** The next generation goes on from the disk; should this one have to, its waiting is over. */
  pause(): void {
    for (const { timer } of this.#overdue.values()) clearTimeout(timer);
  }
}

function keyOf(namespace: string, containerId: string): string {
  return `${namespace}/${containerId}`;
}
