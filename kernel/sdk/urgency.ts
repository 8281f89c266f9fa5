/**
 * A thread that everybody's calls wait for goes first. On a machine that is busy each step of a reload otherwise waits for its turn among the very clients that it keeps
 * waiting, and that had been most of the hold: 10 to 200 ms until the old generation had as much as seen that it is to let go, 10 for all the rest. Takes
 * CAP_SYS_NICE; without it all threads are equal, and nothing is lost.
 */
import { getPriority, setPriority } from 'node:os';

/** Lets the thread with this id, as Linux counts, go before the others, as the calling one does. It settles by itself. */
export function hurry(threadId: number): void {
  try {
    if (threadId !== 0) setPriority(threadId, getPriority(0));
  } catch {
    // EACCES: no privilege. ESRCH: it has ended.
  }
}

/** Puts the thread back among the others, who are at `usual`, where it does not do so itself. */
export function calm(threadId: number, usual: number): void {
  try {
    setPriority(threadId, usual);
  } catch {
    // ESRCH: it has ended.
  }
}

/** The calling thread's, which starts where the one stands that made it. */
export class Urgency {
  readonly #first = getPriority(0);
  readonly #usual: number;

  /** @param usual where the others are; undefined: as this thread is */
  constructor(usual: number | undefined) {
    this.#usual = usual ?? this.#first;
  }

  /** Back among the others. */
  settle(): void {
    if (this.#first !== this.#usual) setPriority(0, this.#usual);
  }

  /** Starts a process, which inherits how urgent its maker is and would stay so, and all that it starts. */
  spawning<T extends { readonly pid?: number | undefined }>(spawn: () => T): T {
    this.settle();
    const child = spawn();
    // Another thread may have been in a hurry for this one just then.
    if (child.pid !== undefined && getPriority(0) !== this.#usual) setPriority(child.pid, this.#usual);
    return child;
  }
}
