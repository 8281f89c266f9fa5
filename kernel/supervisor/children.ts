/**
 * Processes that plugins have started, by pid. While their thread lives, Node waits for them; when it dies nobody does, and they would stay as zombies. Then the
 * kernel waits for each by its pid (never for any child: that would take those of living threads from libuv), and ends what has not ended in time.
 */
import { waitpid } from '../sys/index.ts';
import type { Clock } from './clock.ts';

/** A child may finish what it does: a shim that is being started says its address within this time or has failed. */
const orphanMs = 30_000;
const pollMs = 100;

export interface ChildSystem {
  /** As waitpid of troupe/sys: undefined while it runs. */
  wait(pid: number): unknown;
  kill(pid: number): void;
}

const system: ChildSystem = {
  wait: waitpid,
  kill(pid) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  },
};

export class Children {
  readonly #clock: Clock;
  readonly #system: ChildSystem;
  readonly #running = new Map<object, Set<number>>();
  readonly #orphans = new Map<number, number>();
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, children: ChildSystem = system) {
    this.#clock = clock;
    this.#system = children;
  }

  /** @param thread whatever stands for the thread that started it */
  heard(thread: object, pid: number, running: boolean): void {
    const pids = this.#running.get(thread) ?? new Set();
    if (running) pids.add(pid);
    else pids.delete(pid);
    if (pids.size > 0) this.#running.set(thread, pids);
    else this.#running.delete(thread);
  }

  /** Those of a thread that has ended are the kernel's to wait for. */
  orphaned(thread: object): void {
    for (const pid of this.#running.get(thread) ?? []) this.#orphans.set(pid, this.#clock.now() + orphanMs);
    this.#running.delete(thread);
    this.#look();
  }

  /** Pids that are waited for. */
  get orphans(): readonly number[] {
    return [...this.#orphans.keys()];
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #look(): void {
    this.stop();
    for (const [pid, until] of this.#orphans) {
      if (this.#system.wait(pid) !== undefined) this.#orphans.delete(pid);
      // It is ours until it has been waited for, so the number cannot be anybody else's.
      else if (this.#clock.now() >= until) this.#system.kill(pid);
    }
    if (this.#orphans.size > 0) this.#cancel = this.#clock.after(pollMs, () => this.#look());
  }
}
