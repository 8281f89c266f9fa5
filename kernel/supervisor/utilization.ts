/** How busy each worker's event loop was lately. The runtime only tells since the start, which says nothing about now once a daemon is a day old. */
import type { EventLoopUtilization } from 'node:perf_hooks';
import type { WorkerHandle } from './worker-handle.ts';

const sampleMs = 1000;

interface Seen {
  sample: EventLoopUtilization;
  share: number;
}

export class Utilization {
  readonly #handles: () => Iterable<WorkerHandle>;
  readonly #seen = new WeakMap<WorkerHandle, Seen>();

  constructor(handles: () => Iterable<WorkerHandle>) {
    this.#handles = handles;
    setInterval(() => this.sample(), sampleMs).unref();
  }

  /** Looks at all of them: an interval ends here, and the next begins. */
  sample(): void {
    for (const handle of this.#handles()) {
      if (handle.gone) continue;
      const sample = handle.worker.performance.eventLoopUtilization();
      const before = this.#seen.get(handle)?.sample;
      const { utilization } =
        before === undefined ? sample : handle.worker.performance.eventLoopUtilization(sample, before);
      this.#seen.set(handle, { sample, share: utilization });
    }
  }

  /** Share of the last whole interval, 0 to 1; of all its life for a worker that is younger than one. */
  of(handle: WorkerHandle): number {
    const share = this.#seen.get(handle)?.share ?? handle.worker.performance.eventLoopUtilization().utilization;
    // The two clocks it is made of are read one after the other, so that an idle thread comes out a little below nothing.
    return Math.max(0, share);
  }
}
