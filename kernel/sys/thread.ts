/** What Linux keeps per thread and Node does not show. */
import { stat } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { errnos, SysError } from './errno.ts';
import { check, declare, declareSyscall } from './libc.ts';

const gettidC = declareSyscall<() => number>({ x64: 186, arm64: 178 }, []);
const setpriorityC = declare<(which: number, id: number, nice: number) => number>('setpriority', 'int', [
  'int',
  'uint',
  'int',
]);
const getpriorityC = declare<(which: number, id: number) => number>('getpriority', 'int', ['int', 'uint']);
const unshareC = declare<(flags: number) => number>('unshare', 'int', ['int']);
const umaskC = declare<(mask: number) => number>('umask', 'uint', ['uint']);

const setschedulerC = declare<(id: number, policy: number, priority: number[]) => number>('sched_setscheduler', 'int', [
  'int',
  'int',
  'int *',
]);

const schedSetattrC = declareSyscall<(id: number, attributes: Uint8Array, flags: number) => number>(
  { x64: 314, arm64: 274 },
  ['int', 'void *', 'uint'],
);

const SCHED_OTHER = 0;
const SCHED_RR = 2;
const SCHED_RESET_ON_FORK = 0x40000000;
const PRIO_PROCESS = 0;
const CLONE_FS = 0x200;

/** The calling thread's id, as in /proc/self/task. */
export function gettid(): number {
  return check(gettidC()(), 'gettid');
}

/**
 * The calling thread's niceness, −20 (first) … 19 (last), apart from the process's: a pool that inflates layers stays behind the threads that answer. Threads that it
 * starts inherit it. Lowering the number again takes CAP_SYS_NICE (EACCES).
 */
export function setThreadPriority(nice: number): void {
  check(setpriorityC()(PRIO_PROCESS, gettid(), nice), 'setpriority');
}

export function threadPriority(): number {
  return getpriorityC()(PRIO_PROCESS, gettid());
}

/**
 * The calling thread's niceness, and a long time slice: whoever wakes up has a shorter one, and runs at once instead of at the end of this one's (sched_setattr(2),
 * `sched_runtime` of SCHED_OTHER, since Linux 6.12; older kernels take no notice, and where the call is refused the niceness alone is set).
 *
 * @param sliceMs 1 to 100
 */
export function setBackground(nice: number, sliceMs: number): void {
  // struct sched_attr: size, policy, flags (8 bytes), nice, priority, runtime, deadline and period (8 bytes each).
  const attributes = new DataView(new ArrayBuffer(48));
  attributes.setUint32(0, attributes.byteLength, true);
  attributes.setUint32(4, SCHED_OTHER, true);
  attributes.setInt32(16, nice, true);
  attributes.setBigUint64(24, BigInt(sliceMs) * 1_000_000n, true);
  if (schedSetattrC()(0, new Uint8Array(attributes.buffer), 0) < 0) setThreadPriority(nice);
}

/**
 * Whether the thread with this id runs before all that are not real time: SCHED_RR at the lowest priority, which what it starts does not inherit; otherwise SCHED_OTHER,
 * where its niceness counts (sched(7)). 0 is the calling thread. @throws SysError EPERM without CAP_SYS_NICE, ESRCH when it has ended
 */
export function setRealTime(threadId: number, on: boolean): void {
  const policy = on ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER;
  check(setschedulerC()(threadId, policy, [on ? 1 : 0]), 'sched_setscheduler');
}

let unshared = false;

/**
 * Gives the calling worker a umask, a working directory and a root of its own (unshare(2), CLONE_FS); no privilege needed. For pool threads that make files
 * with exact modes: after `umask(0)` no chmod is needed. Everything that this worker starts inherits them, so it must spawn neither processes nor
 * threads that should not; libuv's pool, which all threads share, is started first for that reason.
 */
export function unshareFs(): void {
  if (isMainThread)
    throw new SysError(
      errnos.EINVAL,
      'unshare',
      undefined,
      undefined,
      'the main thread keeps what new threads inherit',
    );
  if (unshared) return;
  // libuv starts its pool at the first job, from the thread that brings it: queueing one here starts it while all is still shared.
  stat('/', () => {});
  check(unshareC()(CLONE_FS), 'unshare');
  unshared = true;
}

/**
 * Sets the umask and returns the one before. In the main thread that is the whole process's, for every thread that has not called `unshareFs`; in a worker
 * it takes an `unshareFs` before, since it would change modes under the feet of all others.
 */
export function umask(mask: number): number {
  if (!isMainThread && !unshared) {
    throw new SysError(
      errnos.EPERM,
      'umask',
      undefined,
      undefined,
      'a worker shares it with the process until unshareFs',
    );
  }
  return umaskC()(mask & 0o777);
}
