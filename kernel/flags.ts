/**
 * Flags of V8, for the threads that are started from now on. Set before anything is compiled: code that lies compiled beside an image (prebuilt/enter.ts) is taken only
 * where every flag is as it was then, so none may change later. A Node whose V8 does not know one says so on stderr and goes on, which it would not from its command line.
 */
import { setFlagsFromString } from 'node:v8';

export function setFlags(): void {
  // By default a thread collects after each 64 MiB of buffers, whatever has become of them: where blobs pass through, that marked a heap of 10 MB sixty times per
  // pull of 540 MB and took an eighth of its processor time. Counted as part of the heap instead, buffers may grow to a multiple of what is alive first.
  setFlagsFromString('--external-memory-accounted-in-global-limit');
  setFlagsFromString('--external-memory-max-growing-factor=4');
  // For what sdk/garbage.ts is asked to do.
  setFlagsFromString('--expose-gc');
}
