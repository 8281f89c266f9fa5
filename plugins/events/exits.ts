/**
 * Exits are told of once: a shim that reconnects sends again what it believes lost, and tasks announces the exit of a shim that died. One
 * (namespace, container, exec, pid) exits once, until it is started anew.
 */
import { TaskExecStarted, TaskExit, TaskStart } from 'troupe/proto/containerd/events/task.ts';
import type { Event } from './envelope.ts';

/** Exits remembered: at some hundred bytes each, and far more than can be told of twice within the seconds in which shims try again. */
const LIMIT = 20_000;

export class Exits {
  readonly #seen: Set<string>;

  constructor(seen: readonly string[] = []) {
    this.#seen = new Set(seen);
  }

  /** Takes note of the event. False when it is an exit that has been told of. */
  admit({ namespace, topic, event }: Event): boolean {
    try {
      switch (topic) {
        case '/tasks/exit': {
          const { containerId, id, pid } = TaskExit.decode(event.value);
          return this.#exit([namespace, containerId, id, pid]);
        }
        case '/tasks/start': {
          const { containerId, pid } = TaskStart.decode(event.value);
          this.#seen.delete(JSON.stringify([namespace, containerId, containerId, pid]));
          return true;
        }
        case '/tasks/exec-started': {
          const { containerId, execId, pid } = TaskExecStarted.decode(event.value);
          this.#seen.delete(JSON.stringify([namespace, containerId, execId, pid]));
          return true;
        }
        default:
          return true;
      }
    } catch {
      // Not what its topic says; whoever listens may make something of it.
      return true;
    }
  }

  #exit(exit: readonly (string | number)[]): boolean {
    const key = JSON.stringify(exit);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    // A set is in order of insertion: the oldest goes.
    if (this.#seen.size > LIMIT) this.#seen.delete(this.#seen.values().next().value!);
    return true;
  }

  /** For the next generation. */
  list(): string[] {
    return [...this.#seen];
  }
}
