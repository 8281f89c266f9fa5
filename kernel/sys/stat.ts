import { constants } from 'node:fs';
import { AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW } from './at.ts';
import { errnos, type Path, SysError } from './errno.ts';
import { cstring, lastErrno } from './libc.ts';
import { makedev, STATX_BASIC_STATS, StatxAnswer, statxC } from './statx.ts';

const STATX_ATTR_MOUNT_ROOT = 0x2000;
/** One for the thread. */
const answer = new StatxAnswer();

export type FileKind = 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo' | 'socket';

const kinds = new Map<number, FileKind>([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'directory'],
  [constants.S_IFLNK, 'symlink'],
  [constants.S_IFCHR, 'character'],
  [constants.S_IFBLK, 'block'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFSOCK, 'socket'],
]);

export interface FileStatus {
  readonly kind: FileKind;
  /** With the kind's bits (S_IFMT). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** Bytes. */
  readonly size: number;
  /** Allocated, in units of 512 bytes. */
  readonly blocks: number;
  /** 64 bits are in use by some file systems: never a number. */
  readonly ino: bigint;
  /** Of the file system; see `major` and `minor`. */
  readonly dev: number;
  /** Of the device that this file is, 0 for others. */
  readonly rdev: number;
  /** Nanoseconds since 1970. */
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** The root of a mount (Linux 5.8; undefined where the kernel does not say). */
  readonly mountRoot: boolean | undefined;
}

export { makedev };

export function major(device: number): number {
  return (device >>> 8) & 0xfff;
}

export function minor(device: number): number {
  return (device & 0xff) | ((device >>> 12) & 0xfff00);
}

/** statx(2) of `path` below `dirfd`; '' means `dirfd` itself. A link at the end is not followed unless `follow` is true. */
export function fstatat(dirfd: number, path: Path, follow = false): FileStatus {
  const status = tryFstatat(dirfd, path, follow);
  if (status === undefined) throw new SysError(errnos.ENOENT, 'statx', path);
  return status;
}

/** As `fstatat`, but undefined when there is nothing: an Error with its stack costs more than the call. */
export function tryFstatat(dirfd: number, path: Path, follow = false): FileStatus | undefined {
  const flags = AT_EMPTY_PATH | (follow ? 0 : AT_SYMLINK_NOFOLLOW);
  if (statxC()(dirfd, cstring(path, 'statx'), flags, STATX_BASIC_STATS, answer.bytes) < 0) {
    const errno = lastErrno();
    if (errno === errnos.ENOENT) return undefined;
    throw new SysError(errno, 'statx', path);
  }
  return {
    kind: kinds.get(answer.kind) ?? 'file',
    mode: answer.mode,
    uid: answer.bytes.readUInt32LE(20),
    gid: answer.bytes.readUInt32LE(24),
    nlink: answer.nlink,
    size: answer.size,
    blocks: answer.blocks,
    ino: answer.ino,
    dev: answer.dev,
    rdev: answer.rdev,
    atimeNs: readTime(64),
    mtimeNs: readTime(112),
    ctimeNs: readTime(96),
    mountRoot:
      (answer.bytes.readUInt32LE(56) & STATX_ATTR_MOUNT_ROOT) === 0
        ? undefined
        : (answer.bytes.readUInt32LE(8) & STATX_ATTR_MOUNT_ROOT) !== 0,
  };
}

/**
 * Whether something is mounted exactly at `path` (a link at its end is not followed). False when there is nothing at `path`. Kernels before 5.8 do not
 * say; there it compares devices with the parent's, which misses bind mounts of the same file system.
 */
export function isMountPoint(path: string): boolean {
  const status = tryFstatat(AT_FDCWD, path);
  if (status === undefined) return false;
  if (status.mountRoot !== undefined) return status.mountRoot;
  if (status.kind !== 'directory') return false;
  const parent = fstatat(AT_FDCWD, `${path}/..`);
  return parent.dev !== status.dev || parent.ino === status.ino;
}

function readTime(offset: number): bigint {
  return answer.bytes.readBigInt64LE(offset) * 1_000_000_000n + BigInt(answer.bytes.readUInt32LE(offset + 8));
}
