import { errnos, SysError } from './errno.ts';
import { type CString, check, declare, declareSyscall, lastErrno, uninterrupted } from './libc.ts';

const waitpidC = declare<(pid: number, status: Uint8Array, options: number) => number>('waitpid', 'int', [
  'int',
  'void *',
  'int',
]);
const prctlInt = declare<(option: number, a: number, b: number, c: number, d: number) => number>('prctl', 'int', [
  'int',
  'ulong',
  'ulong',
  'ulong',
  'ulong',
]);
const prctlString = declare<(option: number, text: CString) => number>('prctl', 'int', ['int', 'const char *']);
const pidfdOpenC = declareSyscall<(pid: number, flags: number) => number>({ x64: 434, arm64: 434 }, ['int', 'uint']);

/** How a child ended: one of the two is set. */
export interface WaitStatus {
  readonly code: number | undefined;
  readonly signal: number | undefined;
}

const WNOHANG = 1;
const status = Buffer.alloc(4);

/**
 * Reaps one child that has ended; never waits. By pid only: `waitpid(-1)` would take the children of `child_process` from libuv, which then waits for them for
 * ever. For children that Node does not know: orphans that a subreaper inherited, those of a worker that died.
 * @returns undefined while it runs; 'none' when it is no child of this process, or has been reaped
 */
export function waitpid(pid: number): WaitStatus | 'none' | undefined {
  if (!Number.isInteger(pid) || pid <= 0)
    throw new SysError(errnos.EINVAL, 'waitpid', undefined, undefined, `pid ${pid}: one child, by its pid`);
  const result = uninterrupted(() => waitpidC()(pid, status, WNOHANG));
  if (result < 0) {
    const errno = lastErrno();
    if (errno === errnos.ECHILD) return 'none';
    throw new SysError(errno, 'waitpid');
  }
  if (result === 0) return undefined;
  const word = status.readInt32LE();
  const signal = word & 0x7f;
  return signal === 0 ? { code: (word >> 8) & 0xff, signal: undefined } : { code: undefined, signal };
}

const PR_SET_PDEATHSIG = 1;
const PR_SET_NAME = 15;
const PR_SET_CHILD_SUBREAPER = 36;
const PR_GET_CHILD_SUBREAPER = 37;

/** Orphaned descendants become children of this process instead of init's: it must then reap them. Not inherited by children. */
export function setChildSubreaper(on: boolean): void {
  check(prctlInt()(PR_SET_CHILD_SUBREAPER, on ? 1 : 0, 0, 0, 0), 'prctl PR_SET_CHILD_SUBREAPER');
}

export function isChildSubreaper(): boolean {
  const out = Buffer.alloc(4);
  check(prctlPointer()(PR_GET_CHILD_SUBREAPER, out), 'prctl PR_GET_CHILD_SUBREAPER');
  return out.readInt32LE() !== 0;
}

const prctlPointer = declare<(option: number, out: Uint8Array) => number>('prctl', 'int', ['int', 'void *']);

/** The signal that this process gets when the *thread* that started it ends, 0 for none. Check the parent afterwards: it may have ended before. */
export function setParentDeathSignal(signal: number): void {
  check(prctlInt()(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'prctl PR_SET_PDEATHSIG');
}

/** Names the calling thread for ps -T, top -H and perf. The kernel keeps 15 bytes. In the main thread it is the process's name too. */
export function setThreadName(name: string): void {
  check(prctlString()(PR_SET_NAME, name.replaceAll('\0', '')), 'prctl PR_SET_NAME');
}

/** A descriptor that means this process and no later one with the same pid; readable when it has ended. Linux 5.3. ESRCH when there is none. */
export function pidfdOpen(pid: number): number {
  return check(pidfdOpenC()(pid, 0), 'pidfd_open');
}
