/**
 * Which exits have been published in this life of the daemon, so that each is published once per (namespace, container, exec, pid): by its shim, or for a shim
 * that can no longer do it. Also the newest exits themselves, for a Wait that moved here from the generation before.
 */

import type { TaskExit } from 'troupe/proto/containerd/events/task.ts';

/** About 200 bytes each. An exit that is older than this many others is no longer anybody's duplicate. */
const remembered = 8192;

export interface Exit {
  readonly namespace: string;
  readonly event: TaskExit;
}

export class ExitLedger {
  readonly #exits = new Map<string, Exit>();

  /** Notes that an exit was published. False when it had been. */
  note(exit: Exit): boolean {
    const key = keyOf(exit.namespace, exit.event);
    if (this.#exits.has(key)) return false;
    this.#exits.set(key, exit);
    for (const oldest of this.#exits.keys()) {
      if (this.#exits.size <= remembered) break;
      this.#exits.delete(oldest);
    }
    return true;
  }

  has(namespace: string, event: TaskExit): boolean {
    return this.#exits.has(keyOf(namespace, event));
  }

  /** The newest exit of a process, whatever its pid was. */
  find(namespace: string, containerId: string, execId: string): TaskExit | undefined {
    const prefix = `${namespace}/${containerId}/${execId === '' ? containerId : execId}/`;
    return [...this.#exits].findLast(([key]) => key.startsWith(prefix))?.[1].event;
  }

  /** A container of this name begins: what one before it left says nothing of it, though a pid may come again. */
  begin(namespace: string, containerId: string): void {
    const prefix = `${namespace}/${containerId}/`;
    for (const key of this.#exits.keys()) if (key.startsWith(prefix)) this.#exits.delete(key);
  }

  /** Publishes an exit unless that was done; the note is taken first, so that two who notice the same death do not both publish it, and back when publishing fails. */
  async publishOnce(exit: Exit, publish: (namespace: string, event: TaskExit) => Promise<void>): Promise<void> {
    if (!this.note(exit)) return;
    try {
      await publish(exit.namespace, exit.event);
    } catch (error) {
      this.#exits.delete(keyOf(exit.namespace, exit.event));
      throw error;
    }
  }

  /** For the next generation: structured-cloneable. */
  export(): Exit[] {
    return [...this.#exits.values()];
  }

  import(exits: readonly Exit[]): void {
    for (const exit of exits) this.note(exit);
  }
}

function keyOf(namespace: string, { containerId, id, pid }: TaskExit): string {
  return `${namespace}/${containerId}/${id}/${pid}`;
}
