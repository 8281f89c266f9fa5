/**
 * The kernel as its workers watch it. The main thread supervises everybody and nobody supervises it: when its loop does not turn any more, a worker ends the
 * daemon, and whoever started it starts it again. Containers live on in their shims. No thread of its own is needed for it: every worker looks when it beats.
 *
 * The clock alone proves nothing: in a process that was stopped, or on a machine that slept, the worker stood still as well; on one that has too much to do the
 * main thread may not have had its turn. So the worker counts its own beats, and asks the system what the main thread did meanwhile: it must have computed most
 * of the time, or waited in one system call for all of it.
 */
import { readFileSync, writeSync } from 'node:fs';
import { beatMs, look } from './control-page.ts';

/** Share of the beats that a worker must have had itself while the kernel had none. */
const ownShare = 0.5;
const computingShare = 0.6;
const waitingShare = 0.02;

export interface ThreadSample {
  /** CPU time it has used in all, milliseconds. */
  readonly cpuMs: number;
  /** It waits for something, rather than for a processor. */
  readonly waits: boolean;
}

export class KernelWatch {
  readonly #page: SharedArrayBuffer;
  readonly #limitMs: number;
  readonly #sample: () => ThreadSample;
  readonly #end: (reason: string) => void;
  #beats = 0;
  #since = 0;
  #own = 0;
  #cpuMs = 0;
  #waited = true;

  /** @param limitMs 0: it is not watched */
  constructor(
    page: SharedArrayBuffer,
    limitMs: number,
    sample: () => ThreadSample = mainThread,
    end: (reason: string) => void = endDaemon,
  ) {
    this.#page = page;
    this.#limitMs = limitMs;
    this.#sample = sample;
    this.#end = end;
  }

  /** At every beat of the worker. `now` in milliseconds since the epoch. */
  tick(now: number = Date.now()): void {
    if (this.#limitMs === 0) return;
    const { beats, busy } = look(this.#page);
    // What it says of itself holds for it as for the workers: a log that is not read, a disk that stalls. 0: it has not begun.
    if (beats !== this.#beats || beats === 0 || (busy !== undefined && now < busy.until)) {
      this.#beats = beats;
      this.#since = now;
      this.#own = 0;
      return;
    }
    this.#own += 1;
    // A loop that is well misses a beat now and then.
    if (this.#own < 2) return;
    const { cpuMs, waits } = this.#sample();
    if (this.#own === 2) {
      this.#cpuMs = cpuMs;
      this.#waited = true;
    }
    this.#waited &&= waits;
    const silentMs = now - this.#since;
    if (silentMs < this.#limitMs || this.#own * beatMs < this.#limitMs * ownShare) return;
    const usedMs = cpuMs - this.#cpuMs;
    if (usedMs >= this.#limitMs * computingShare) this.#end(`has not come to rest for ${silentMs} ms`);
    else if (this.#waited && usedMs <= this.#limitMs * waitingShare)
      this.#end(`has waited in a call for ${silentMs} ms`);
  }
}

/** proc_pid_stat(5): state, and utime and stime in hundredths of a second. The main thread has the process's id. */
function mainThread(): ThreadSample {
  const text = readFileSync(`/proc/self/task/${process.pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { cpuMs: (Number(fields[11]) + Number(fields[12])) * 10, waits: fields[0] === 'S' || fields[0] === 'D' };
}

function endDaemon(reason: string): void {
  try {
    writeSync(2, `trouped: the main thread ${reason}: the daemon ends itself\n`);
  } catch {
    // The log may be what it hangs at.
  }
  process.kill(process.pid, 'SIGKILL');
}
