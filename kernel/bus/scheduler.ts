/**
 * The receive scheduler: no user code runs in a port's `message` handler.
 *
 * Node hands a port max(queued, 1000) messages per turn, so a port that is kept full starves every other one (320 ms for a ping, measured).
 * Here a handler only queues the batch. One turn works for a millisecond, then yields to the loop with setImmediate: 0.7 ms for the same ping.
 * Control goes first, always; interactive and bulk share eight to one.
 */
import type { Priority } from './frames.ts';

export interface Work {
  /** Does one frame. */
  step(): void;
  readonly done: boolean;
}

const turnMs = 1;
const framesPerTurn = 512;
const interactiveShare = 8;

export class Scheduler {
  readonly #queues: [Work[], Work[], Work[]] = [[], [], []];
  #scheduled = false;
  #sinceBulk = 0;

  /** Batches that wait, of all priorities. */
  get depth(): number {
    return this.#queues[0].length + this.#queues[1].length + this.#queues[2].length;
  }

  push(work: Work, priority: Priority): void {
    this.#queues[priority].push(work);
    if (this.#scheduled) return;
    this.#scheduled = true;
    // The first batch after idleness waits for nothing: setImmediate alone would cost it a whole turn of the loop.
    process.nextTick(this.#turn);
  }

  readonly #turn = (): void => {
    const until = performance.now() + turnMs;
    let frames = 0;
    for (;;) {
      const queue = this.#pick();
      if (queue === undefined) {
        this.#scheduled = false;
        return;
      }
      const work = queue[0]!;
      work.step();
      if (work.done) queue.shift();
      frames += 1;
      if ((frames & 15) === 0 && (frames >= framesPerTurn || performance.now() >= until)) {
        setImmediate(this.#turn);
        return;
      }
    }
  };

  #pick(): Work[] | undefined {
    const [control, interactive, bulk] = this.#queues;
    if (control.length > 0) return control;
    if (bulk.length > 0 && (interactive.length === 0 || this.#sinceBulk >= interactiveShare)) {
      this.#sinceBulk = 0;
      return bulk;
    }
    if (interactive.length > 0) {
      this.#sinceBulk += 1;
      return interactive;
    }
    return undefined;
  }
}
