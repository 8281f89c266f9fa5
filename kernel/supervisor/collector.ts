/** How V8 counts memory outside its heaps, in every thread that is started from now on. */
import { setFlagsFromString } from 'node:v8';

/**
 * By default a thread collects after each 64 MiB of buffers, whatever has become of them: where blobs pass through, that marked a heap of 10 MB sixty times per
 * pull of 540 MB and took an eighth of its processor time. Counted as part of the heap instead, buffers may grow to a multiple of what is alive first.
 * A Node whose V8 does not know the flags says so on stderr and goes on.
 */
export function countBuffersAsHeap(): void {
  setFlagsFromString('--external-memory-accounted-in-global-limit');
  setFlagsFromString('--external-memory-max-growing-factor=4');
}
