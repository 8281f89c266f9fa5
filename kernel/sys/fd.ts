import { errnos, type Path, SysError } from './errno.ts';
import { check, declare, lastErrno, uninterrupted } from './libc.ts';

const closeC = declare<(fd: number) => number>('close', 'int', ['int']);
const fcntlInt = declare<(fd: number, command: number, argument: number) => number>('fcntl', 'int', [
  'int',
  'int',
  'long',
]);
const flockC = declare<(fd: number, operation: number) => number>('flock', 'int', ['int', 'int']);

const F_GETFD = 1;
const F_SETFD = 2;
const F_DUPFD_CLOEXEC = 1030;
const FD_CLOEXEC = 1;

/**
 * close(2), for the descriptors that this module opened. Node closes what a worker opened through `fs` when the worker is terminated, and does not know
 * these: they stay until the process ends, so hold few and briefly in code that may be terminated.
 */
export function close(fd: number): void {
  // Not repeated after EINTR: Linux has freed the number by then, and another thread may have it.
  if (closeC()(fd) < 0 && lastErrno() !== errnos.EINTR) check(-1, 'close');
}

/** A second descriptor of the same open file, closed on exec; at least `lowest` (so that it stays out of the way of 0, 1 and 2). */
export function dup(fd: number, lowest = 3): number {
  return check(fcntlInt()(fd, F_DUPFD_CLOEXEC, lowest), 'fcntl');
}

/** Whether a spawned process inherits `fd` (it does when `closeOnExec` is false). */
export function setCloseOnExec(fd: number, closeOnExec: boolean): void {
  check(fcntlInt()(fd, F_SETFD, closeOnExec ? FD_CLOEXEC : 0), 'fcntl');
}

export function isCloseOnExec(fd: number): boolean {
  return (check(fcntlInt()(fd, F_GETFD, 0), 'fcntl') & FD_CLOEXEC) !== 0;
}

export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/**
 * flock(2): an advisory lock of the open file, let go when its last descriptor closes, so also by the death of the process. Without
 * LOCK_NB it blocks the thread.
 * @returns false when LOCK_NB was given and another open file holds the lock.
 */
export function flock(fd: number, operation: number, path?: Path): boolean {
  if (uninterrupted(() => flockC()(fd, operation)) === 0) return true;
  const errno = lastErrno();
  if (errno === errnos.EAGAIN) return false;
  throw new SysError(errno, 'flock', path);
}

/**
 * A path that names what a held descriptor names, whatever has been renamed meanwhile; with `name`, an entry of that directory. For the calls that
 * have no *at form (xattrs, mount, statfs, Node's own). `name` must be a single component for that to hold; the call decides whether a
 * symbolic link at its end is followed.
 */
export function fdPath(fd: number): string;
export function fdPath(fd: number, name: string): string;
export function fdPath(fd: number, name: Path): Path;
export function fdPath(fd: number, name?: Path): Path {
  if (name === undefined) return `/proc/self/fd/${fd}`;
  if (typeof name === 'string') return `/proc/self/fd/${fd}/${name}`;
  return Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]);
}

/** Runs `use` with `fd` and closes it, whatever happens. */
export function withFd<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}
