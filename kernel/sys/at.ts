/** The *at family: everything relative to a held directory descriptor, names as bytes or strings, nothing resolved twice. */
import { constants } from 'node:fs';
import { errnos, type Path, SysError } from './errno.ts';
import { fdPath, withFd } from './fd.ts';
import { type CString, check, cstring, declare, declareSyscall, lastErrno, uninterrupted } from './libc.ts';

const openatC = declare<(dirfd: number, path: CString, flags: number, mode: number) => number>('openat', 'int', [
  'int',
  'const char *',
  'int',
  'uint',
]);
const openat2C = declareSyscall<(dirfd: number, path: CString, how: Uint8Array, size: number) => number>(
  { x64: 437, arm64: 437 },
  ['int', 'const char *', 'void *', 'size_t'],
);
const mkdiratC = declare<(dirfd: number, path: CString, mode: number) => number>('mkdirat', 'int', [
  'int',
  'const char *',
  'uint',
]);
const mknodatC = declareSyscall<(dirfd: number, path: CString, mode: number, dev: number) => number>(
  { x64: 259, arm64: 33 },
  ['int', 'const char *', 'uint', 'uint'],
);
const symlinkatC = declare<(target: CString, dirfd: number, path: CString) => number>('symlinkat', 'int', [
  'const char *',
  'int',
  'const char *',
]);
const linkatC = declare<(fromfd: number, from: CString, tofd: number, to: CString, flags: number) => number>(
  'linkat',
  'int',
  ['int', 'const char *', 'int', 'const char *', 'int'],
);
const unlinkatC = declare<(dirfd: number, path: CString, flags: number) => number>('unlinkat', 'int', [
  'int',
  'const char *',
  'int',
]);
const renameat2C = declareSyscall<(fromfd: number, from: CString, tofd: number, to: CString, flags: number) => number>(
  { x64: 316, arm64: 276 },
  ['int', 'const char *', 'int', 'const char *', 'uint'],
);
const fchownatC = declare<(dirfd: number, path: CString, uid: number, gid: number, flags: number) => number>(
  'fchownat',
  'int',
  ['int', 'const char *', 'uint', 'uint', 'int'],
);
const fchmodat2C = declareSyscall<(dirfd: number, path: CString, mode: number, flags: number) => number>(
  { x64: 452, arm64: 452 },
  ['int', 'const char *', 'uint', 'uint'],
);
const chmodC = declare<(path: CString, mode: number) => number>('chmod', 'int', ['const char *', 'uint']);
const utimensatC = declare<(dirfd: number, path: CString, times: BigInt64Array, flags: number) => number>(
  'utimensat',
  'int',
  ['int', 'const char *', 'void *', 'int'],
);
const futimensC = declare<(fd: number, times: BigInt64Array) => number>('futimens', 'int', ['int', 'void *']);
const readlinkatC = declare<(dirfd: number, path: CString, buffer: Uint8Array, size: number) => number>(
  'readlinkat',
  'int64',
  ['int', 'const char *', 'void *', 'size_t'],
);

/** "The current directory" as `dirfd`; also what goes with an absolute path. */
export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_REMOVEDIR = 0x200;
export const AT_SYMLINK_FOLLOW = 0x400;
/** The name may be '', and then `dirfd` itself is meant. */
export const AT_EMPTY_PATH = 0x1000;

/** Flags of open that `fs.constants` lacks. */
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
export const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** openat2(2): refuse to leave the directory by '..', absolute paths or links (EXDEV). */
export const RESOLVE_BENEATH = 0x08;
/** openat2(2): `dirfd` is '/' and its own parent: nothing in a path leads out of it. */
export const RESOLVE_IN_ROOT = 0x10;
/** openat2(2): refuse links like /proc/self/fd/N (ELOOP). Implied by the two above, today. */
export const RESOLVE_NO_MAGICLINKS = 0x02;
/** openat2(2): refuse every symbolic link, also in the middle (ELOOP). */
export const RESOLVE_NO_SYMLINKS = 0x04;
/** openat2(2): refuse to cross into another mount (EXDEV). */
export const RESOLVE_NO_XDEV = 0x01;

/** renameat2(2): EEXIST rather than replace. */
export const RENAME_NOREPLACE = 1;
/** renameat2(2): both must exist and change places. */
export const RENAME_EXCHANGE = 2;
/** renameat2(2): leave a whiteout (character device 0:0) at the source, as overlayfs does. */
export const RENAME_WHITEOUT = 4;

/**
 * openat(2). O_CLOEXEC is always added. `mode` counts only with O_CREAT, and the umask is taken off it. Close what this gives with `close` of this module:
 * in a worker, Node keeps count of the descriptors that it opened itself, and warns when `fs.closeSync` is given another.
 */
export function openat(dirfd: number, path: Path, flags: number, mode = 0): number {
  const name = cstring(path, 'openat');
  const fd = uninterrupted(() => openatC()(dirfd, name, flags | O_CLOEXEC, mode));
  return check(fd, 'openat', path);
}

/** struct open_how: flags, mode, resolve, each u64 (linux/openat2.h). One for the thread: calls are synchronous. */
const how = new BigUint64Array(3);
const howBytes = new Uint8Array(how.buffer);

/**
 * openat2(2), Linux 5.6. O_CLOEXEC is always added. Answers EINVAL for a `mode` without O_CREAT or O_TMPFILE and for unknown bits, where openat is silent.
 * EAGAIN, which RESOLVE_IN_ROOT and RESOLVE_BENEATH give when anything on the machine is renamed while a '..' is resolved, is tried again here,
 * a hundred times; then it is thrown.
 */
export function openat2(dirfd: number, path: Path, flags: number, resolve: number, mode = 0): number {
  const fd = tryOpenat2(dirfd, path, flags, resolve, mode);
  if (fd === undefined) throw new SysError(errnos.ENOENT, 'openat2', path);
  return fd;
}

/** As `openat2`; undefined when there is nothing of that name (ENOENT, also of a directory in between). */
export function tryOpenat2(dirfd: number, path: Path, flags: number, resolve: number, mode = 0): number | undefined {
  const name = cstring(path, 'openat2');
  how[0] = BigInt(flags | O_CLOEXEC);
  how[1] = BigInt(mode);
  how[2] = BigInt(resolve);
  for (let attempt = 1; ; attempt++) {
    const fd = openat2C()(dirfd, name, howBytes, 24);
    if (fd >= 0) return fd;
    const errno = lastErrno();
    if (errno === errnos.ENOENT) return undefined;
    if (errno === errnos.EINTR || (errno === errnos.EAGAIN && attempt < 100)) continue;
    throw new SysError(errno, 'openat2', path);
  }
}

/** mkdirat(2). The umask is taken off `mode`; a mode that must hold is set afterwards by `fchmodat`. */
export function mkdirat(dirfd: number, path: Path, mode: number): void {
  check(mkdiratC()(dirfd, cstring(path, 'mkdirat'), mode), 'mkdirat', path);
}

/** As `mkdirat`; false when the name is taken, by whatever: an Error with its stack costs more than the call, and archives repeat their directories. */
export function tryMkdirat(dirfd: number, path: Path, mode: number): boolean {
  return succeeded(mkdiratC()(dirfd, cstring(path, 'mkdirat'), mode), errnos.EEXIST, 'mkdirat', path);
}

/** mknodat(2). `mode` carries the kind: S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO or S_IFSOCK; `device` as `makedev` gives it. The umask is taken off. */
export function mknodat(dirfd: number, path: Path, mode: number, device = 0): void {
  check(mknodatC()(dirfd, cstring(path, 'mknodat'), mode, device), 'mknodat', path);
}

/** A named pipe. The umask is taken off `mode`. */
export function mkfifo(path: Path, mode: number): void {
  mknodat(AT_FDCWD, path, constants.S_IFIFO | (mode & 0o7777));
}

/** symlinkat(2): makes the link `path` that says `target`. */
export function symlinkat(target: Path, dirfd: number, path: Path): void {
  check(symlinkatC()(cstring(target, 'symlinkat'), dirfd, cstring(path, 'symlinkat')), 'symlinkat', target, path);
}

/** linkat(2): a hard link `to` of `from`. A link at the end of `from` is not followed unless AT_SYMLINK_FOLLOW is given. */
export function linkat(fromfd: number, from: Path, tofd: number, to: Path, flags = 0): void {
  check(linkatC()(fromfd, cstring(from, 'linkat'), tofd, cstring(to, 'linkat'), flags), 'linkat', from, to);
}

/** unlinkat(2); with AT_REMOVEDIR, rmdir. */
export function unlinkat(dirfd: number, path: Path, flags = 0): void {
  check(unlinkatC()(dirfd, cstring(path, 'unlinkat'), flags), 'unlinkat', path);
}

/** As `unlinkat`; false when there is nothing of that name. */
export function tryUnlinkat(dirfd: number, path: Path, flags = 0): boolean {
  return succeeded(unlinkatC()(dirfd, cstring(path, 'unlinkat'), flags), errnos.ENOENT, 'unlinkat', path);
}

/** renameat2(2). With flags, EINVAL where the file system cannot. */
export function renameat2(fromfd: number, from: Path, tofd: number, to: Path, flags = 0): void {
  check(renameat2C()(fromfd, cstring(from, 'renameat2'), tofd, cstring(to, 'renameat2'), flags), 'renameat2', from, to);
}

/** fchownat(2). -1 leaves an id as it is. Links are not followed unless `flags` is 0. Clears set-user-ID and set-group-ID, so own first, then mode. */
export function fchownat(dirfd: number, path: Path, uid: number, gid: number, flags = AT_SYMLINK_NOFOLLOW): void {
  check(fchownatC()(dirfd, cstring(path, 'fchownat'), uid >>> 0, gid >>> 0, flags), 'fchownat', path);
}

let hasFchmodat2 = true;

/**
 * Sets a mode exactly, whatever the umask, and never through a symbolic link: fchmodat2(2) on Linux 6.6 and later, else `chmodByDescriptor`. ENOTSUP for a
 * symbolic link: a link has no mode.
 */
export function fchmodat(dirfd: number, path: Path, mode: number): void {
  if (hasFchmodat2) {
    if (fchmodat2C()(dirfd, cstring(path, 'fchmodat'), mode, AT_SYMLINK_NOFOLLOW) === 0) return;
    const errno = lastErrno();
    // EPERM too: older seccomp profiles answer it for calls that they do not know.
    if (errno !== errnos.ENOSYS && errno !== errnos.EPERM) throw new SysError(errno, 'fchmodat2', path);
    if (errno === errnos.ENOSYS) hasFchmodat2 = false;
  }
  chmodByDescriptor(dirfd, path, mode);
}

/** `fchmodat` for older kernels: chmod(2) of what an O_PATH descriptor names, which was opened without following. */
export function chmodByDescriptor(dirfd: number, path: Path, mode: number): void {
  withFd(openat(dirfd, path, O_PATH | constants.O_NOFOLLOW), (fd) => {
    // Some file systems would store a mode for the link, and show it.
    if (isLink(fd)) throw new SysError(errnos.EOPNOTSUPP, 'fchmodat', path);
    check(chmodC()(fdPath(fd), mode), 'chmod', path);
  });
}

/** A time to set: nanoseconds since 1970 (may be negative), the time now, or leave as it is. */
export type SetTime = bigint | 'now' | 'omit';

/** struct timespec[2]: seconds, nanoseconds; both s64 on x86_64 and aarch64. */
const timespecs = new BigInt64Array(4);
const UTIME_NOW = 0x3fffffffn;
const UTIME_OMIT = 0x3ffffffen;
const SECOND = 1_000_000_000n;

function setTimespec(at: number, time: SetTime): void {
  if (typeof time !== 'bigint') {
    timespecs[at] = 0n;
    timespecs[at + 1] = time === 'now' ? UTIME_NOW : UTIME_OMIT;
    return;
  }
  const rest = ((time % SECOND) + SECOND) % SECOND;
  timespecs[at] = (time - rest) / SECOND;
  timespecs[at + 1] = rest;
}

/** utimensat(2), to the nanosecond. `path` null means `dirfd` itself (which must not be O_PATH). Links are not followed unless `flags` is 0. */
export function utimensat(
  dirfd: number,
  path: Path | null,
  atime: SetTime,
  mtime: SetTime,
  flags = AT_SYMLINK_NOFOLLOW,
): void {
  setTimespec(0, atime);
  // Division of bigints is slow, and most archives have one time for both.
  if (mtime === atime) timespecs.copyWithin(2, 0, 2);
  else setTimespec(2, mtime);
  if (path === null) check(futimensC()(dirfd, timespecs), 'futimens');
  else check(utimensatC()(dirfd, cstring(path, 'utimensat'), timespecs, flags), 'utimensat', path);
}

/** readlinkat(2): what the link says, as bytes. With '' as path, of the link that `dirfd` (O_PATH | O_NOFOLLOW) names. */
export function readlinkat(dirfd: number, path: Path): Buffer {
  const name = cstring(path, 'readlinkat');
  for (let size = 256; ; size *= 4) {
    const buffer = Buffer.allocUnsafe(size);
    const length = check(readlinkatC()(dirfd, name, buffer, size), 'readlinkat', path);
    if (length < size) return buffer.subarray(0, length);
  }
}

function succeeded(result: number, expected: number, syscall: string, path: Path): boolean {
  if (result === 0) return true;
  const errno = lastErrno();
  if (errno === expected) return false;
  throw new SysError(errno, syscall, path);
}

function isLink(fd: number): boolean {
  return readlinkatC()(fd, '', Buffer.allocUnsafe(1), 1) >= 0;
}
