/**
 * While everybody's calls wait for a few threads, those threads run before all others: real time, which takes CAP_SYS_NICE. Each step of a hold is a message to a thread
 * that has to wake up, and one that is merely nicer waits there for up to a tick of the scheduler's clock, 4 ms at 250 Hz, behind the clients that it keeps waiting:
 * four such steps made one hold in a hundred longer than 20 ms.
 */
import { prepareSystemCalls } from '../sys/libc.ts';
import { setRealTime } from '../sys/thread.ts';
import { hurry } from '../sdk/urgency.ts';

/** A plugin that is slow to let go keeps a processor from everybody else for no longer. */
const longestMs = 200;

/** The calling thread is in it for as long as any rush lasts. */
let under = 0;

/** So that the first rush does not wait for the library. */
export function prepareRush(): void {
  try {
    prepareSystemCalls();
  } catch {
    // Nor will there be a rush then.
  }
}

/**
 * Has these threads and the calling one run before all others, until what is returned is called, which may be more than once; and for 200 ms at most.
 * After that, and without the privilege, they are as nice as the calling one until they settle (sdk/urgency.ts).
 */
export function rush(threadIds: readonly number[]): () => void {
  const threads = threadIds.filter((id) => id !== 0);
  for (const id of threads) hurry(id);
  if (!attempt(0, true)) return () => {};
  under += 1;
  for (const id of threads) attempt(id, true);
  let over = false;
  const end = () => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    for (const id of threads) attempt(id, false);
    under -= 1;
    if (under === 0) attempt(0, false);
  };
  const timer = setTimeout(end, longestMs);
  return end;
}

/** EPERM: no privilege. ESRCH: it has ended. */
function attempt(id: number, on: boolean): boolean {
  try {
    setRealTime(id, on);
    return true;
  } catch {
    return false;
  }
}
