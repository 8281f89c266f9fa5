/**
 * Ends that came before those were back who listened to the daemon before.
 *
 * A shim tells its exits as soon as there is a daemon again; a client that lost its connection tries again less and less often, containerd's own after up to 3.6 s.
 * One who hears nothing of an exit takes the container for running for ever: dockerd asks for no state when it comes back, it listens. So whoever subscribes in the
 * first seconds of a daemon is told first what ended of that which the daemon before had started. containerd loses it.
 *
 * What it costs: such a stream begins with events from before it, and two streams that begin in these seconds are both told. What was started since the daemon is
 * there is nobody's news: events of its exit come only from then on, as at any other time.
 */
import { TaskExecStarted, TaskExit, TaskOOM, TaskStart } from 'troupe/proto/containerd/events/task.ts';
import type { Event } from './envelope.ts';
import type { Numbered } from './exchange.ts';

/** Milliseconds for which listeners are expected back: twice the longest pause of containerd's client, and the time that the rest of the daemon takes to start. */
const homecoming = 10_000;

/** Of what is kept; half of what a subscriber's queue holds, so that being told alone makes nobody a slow one. */
const bounds = { events: 5_000, bytes: 4 * 1024 * 1024 };

/** Structured-cloneable, for a reload within these seconds. */
export interface MissedState {
  readonly left: number;
  readonly kept: readonly Numbered[];
  readonly begun: readonly string[];
}

export class Missed {
  readonly #clock: () => number;
  readonly #until: number;
  #kept: Numbered[];
  #bytes: number;
  readonly #begun: Set<string>;

  constructor(state?: MissedState, clock = (): number => performance.now()) {
    this.#clock = clock;
    this.#until = clock() + (state?.left ?? homecoming);
    this.#kept = [...(state?.kept ?? [])];
    this.#bytes = this.#kept.reduce((sum, { size }) => sum + size, 0);
    this.#begun = new Set(state?.begun);
  }

  /** Takes note of what was published by one who knows. */
  note(numbered: Numbered): void {
    if (!this.#open()) return;
    try {
      if (!this.#isNews(numbered.event)) return;
    } catch {
      return; // Not what its topic says.
    }
    this.#kept.push(numbered);
    this.#bytes += numbered.size;
    while (this.#kept.length > bounds.events || this.#bytes > bounds.bytes) this.#bytes -= this.#kept.shift()!.size;
  }

  /** What a stream that begins now is told first, in order. */
  list(): readonly Numbered[] {
    return this.#open() ? this.#kept : [];
  }

  state(): MissedState {
    const left = Math.max(0, this.#until - this.#clock());
    return this.#open() ? { left, kept: this.#kept, begun: [...this.#begun] } : { left, kept: [], begun: [] };
  }

  /** What was kept is let go with the last of these seconds, or rather with the first event after it. */
  #open(): boolean {
    if (this.#clock() < this.#until) return true;
    this.#kept = [];
    this.#begun.clear();
    return false;
  }

  #isNews({ namespace, topic, event }: Event): boolean {
    switch (topic) {
      case '/tasks/start': {
        const { containerId, pid } = TaskStart.decode(event.value);
        // Which process runs out of memory an event does not say: any of the container's.
        this.#begin(JSON.stringify([namespace, containerId]));
        this.#begin(JSON.stringify([namespace, containerId, containerId, pid]));
        return false;
      }
      case '/tasks/exec-started': {
        const { containerId, execId, pid } = TaskExecStarted.decode(event.value);
        this.#begin(JSON.stringify([namespace, containerId, execId, pid]));
        return false;
      }
      case '/tasks/exit': {
        const { containerId, id, pid } = TaskExit.decode(event.value);
        return !this.#begun.has(JSON.stringify([namespace, containerId, id, pid]));
      }
      case '/tasks/oom':
        return !this.#begun.has(JSON.stringify([namespace, TaskOOM.decode(event.value).containerId]));
      default:
        return false;
    }
  }

  /** The oldest is forgotten of more than can be started in these seconds, and only somebody who makes up events does that. */
  #begin(process: string): void {
    this.#begun.add(process);
    if (this.#begun.size > bounds.events) this.#begun.delete(this.#begun.values().next().value!);
  }
}
