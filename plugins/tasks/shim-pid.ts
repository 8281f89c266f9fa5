/**
 * The process of a shim, so that a shim that no longer listens can be ended. A pid is what the shim says of itself, so it is believed only when that process runs the
 * shim's binary, and it is signalled only while it is still the same process.
 *
 * What looks for a process in order to end it throws when there is no descriptor to look with (scarcity.ts): it would take one that runs for gone.
 */

import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isScarcity } from './scarcity.ts';

export interface ShimPid {
  readonly pid: number;
  /** Ticks since boot, from /proc/PID/stat: with the pid it names one process. */
  readonly startTime: string;
}

/** The process, or undefined when there is none, it is one that no shim can be, it runs something other than `binary`, or it cannot be told. */
export function shimPid(pid: number, binary: string): ShimPid | undefined {
  try {
    return identified(pid, binary);
  } catch {
    return undefined;
  }
}

function identified(pid: number, binary: string): ShimPid | undefined {
  if (!plausiblePid(pid)) return undefined;
  const startTime = startTimeOf(pid);
  return startTime !== undefined && runs(pid, binary) ? { pid, startTime } : undefined;
}

/**
 * The shim of a task by its command line (`-namespace NS … -id ID … -address ADDRESS`, which every shim's daemon carries): for one that does not say its pid.
 * Reads all of /proc, so only on the way to ending it.
 */
export function findShim(binary: string, namespace: string, id: string, address: string): ShimPid | undefined {
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    const words = commandLine(Number(name));
    const says = (flag: string, value: string): boolean =>
      words[words.indexOf(flag) + 1] === value && words.includes(flag);
    if (says('-namespace', namespace) && says('-id', id) && says('-address', address)) {
      const found = identified(Number(name), binary);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** Runtimes that work on the bundle at `path` (`… create --bundle PATH …`); nobody else who names it. Reads all of /proc. */
export function findRuntimes(path: string): ShimPid[] {
  const found: ShimPid[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = /^[0-9]+$/.test(name) ? Number(name) : 0;
    if (!plausiblePid(pid)) continue;
    const words = commandLine(pid);
    const flag = words.indexOf('--bundle');
    if (flag < 0 || words[flag + 1] !== path) continue;
    const startTime = startTimeOf(pid);
    if (startTime !== undefined) found.push({ pid, startTime });
  }
  return found;
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`).toString().split('\0');
  } catch (error) {
    if (isScarcity(error)) throw error;
    return [];
  }
}

/** A pid that a shim may claim for itself or a container: not init's, not the daemon's, none that is negative in C. */
export function plausiblePid(pid: number): boolean {
  return pid > 1 && pid < 2 ** 31 && pid !== process.pid;
}

export function isRunning({ pid, startTime }: ShimPid): boolean {
  return startTimeOf(pid) === startTime;
}

/** Whether it has children. Of a kernel that does not say (CONFIG_PROC_CHILDREN) none is known. */
export function hasChildren({ pid }: ShimPid): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).some(
      (thread) => readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1').trim() !== '',
    );
  } catch {
    return false;
  }
}

/** SIGTERM, and SIGKILL when that has no effect in `patience` ms. Resolves when the process is gone, or would not go in as long again. */
export async function endProcess(process: ShimPid, patience: number): Promise<boolean> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (!send(process, signal) || (await goneWithin(process, patience))) return true;
  }
  return false;
}

/** Whether the process is gone after at most `limit` ms. */
export async function goneWithin(process: ShimPid, limit: number): Promise<boolean> {
  const deadline = performance.now() + limit;
  for (let pause = 1; performance.now() < deadline; pause = Math.min(2 * pause, 20)) {
    if (!isRunning(process)) return true;
    await delay(pause);
  }
  return !isRunning(process);
}

function send(target: ShimPid, signal: NodeJS.Signals): boolean {
  if (!isRunning(target)) return false;
  try {
    process.kill(target.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Undefined for a process that is gone, a zombie included: it holds nothing any more and waits for its parent alone. */
function startTimeOf(pid: number): string | undefined {
  try {
    // The name, in parentheses, may hold anything; what follows the last one is fields from the third on.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch (error) {
    if (isScarcity(error)) throw error;
    return undefined;
  }
}

/** Its executable is the binary, or (a script) one of its arguments is. */
function runs(pid: number, binary: string): boolean {
  try {
    const real = realpathSync(binary);
    const executable = readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
    if (executable === real || executable === binary) return true;
    return commandLine(pid)
      .slice(0, 4)
      .some((word) => word === real || word === binary);
  } catch (error) {
    if (isScarcity(error)) throw error;
    return false;
  }
}
