/**
 * Threads of this process that load native code at this moment. koffi cannot throw into a thread that is being ended, and aborts the process instead (libc.ts), so who
 * ends a thread waits until none loads: not the thread itself only, since those that it has started, a pool's, end with it.
 */
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';

const key = 'troupe:loading';
/** Loads at one time; what is beyond them is not waited for. */
const slots = 64;
/** A load takes some 10 ms, on a machine that is busy some 100. One that hangs, or whose thread is gone, keeps nobody for longer. */
const longestMs = 1000;
/** No load begins for so long after an ending has: by then the threads below are gone. A new worker takes longer to come to its load. */
const heldMs = 30;
const mask = 0x3fffffff;

/** When each load began, and after those when a thread was last ended; 0: never. The memory is handed on to every thread that is made from now on, and by those to theirs. */
function begun(): Int32Array {
  let memory = getEnvironmentData(key);
  if (!(memory instanceof SharedArrayBuffer)) {
    memory = new SharedArrayBuffer((slots + 1) * Int32Array.BYTES_PER_ELEMENT);
    setEnvironmentData(key, memory);
  }
  return new Int32Array(memory as SharedArrayBuffer);
}

const clock = (): number => (Date.now() & mask) | 1;
const isYoung = (time: number, ms: number): boolean => time !== 0 && ((clock() - time) & mask) <= ms;

/** The slot of a load that is under way; -1: there is none. */
function loading(times: Int32Array): number {
  for (let slot = 0; slot < slots; slot++) if (isYoung(Atomics.load(times, slot), longestMs)) return slot;
  return -1;
}

/** For who makes threads: those made from now on see each other's loads. */
export function shareLoads(): void {
  begun();
}

export function whileLoading<T>(load: () => T): T {
  // Never ended by another.
  if (isMainThread) return load();
  const times = begun();
  for (;;) {
    const slot = claim(times);
    try {
      // Read after the claim, as who ends a thread looks for claims after saying so: one of the two sees the other.
      const ended = Atomics.load(times, slots);
      if (!isYoung(ended, heldMs)) return load();
    } finally {
      if (slot >= 0) {
        Atomics.store(times, slot, 0);
        Atomics.notify(times, slot);
      }
    }
    // Where it stands when its thread is ended: nothing is lost then.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, heldMs / 10);
  }
}

/** @returns -1 when all are taken */
function claim(times: Int32Array): number {
  for (let slot = 0; slot < slots; slot++) {
    const time = Atomics.load(times, slot);
    if (!isYoung(time, longestMs) && Atomics.compareExchange(times, slot, time, clock()) === time) return slot;
  }
  return -1;
}

/** Resolves when no thread loads, and none begins to: what ends one must follow at once. */
export async function loadsEnded(): Promise<void> {
  const times = begun();
  const until = performance.now() + longestMs;
  Atomics.store(times, slots, clock());
  while (loading(times) >= 0 && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    Atomics.store(times, slots, clock());
  }
}

/** The same for a thread that is ending itself, and has no other turn of its loop. */
export function awaitLoads(): void {
  const times = begun();
  const until = performance.now() + longestMs;
  Atomics.store(times, slots, clock());
  for (let slot = loading(times); slot >= 0 && performance.now() < until; slot = loading(times)) {
    Atomics.wait(times, slot, Atomics.load(times, slot), 5);
    Atomics.store(times, slots, clock());
  }
}
