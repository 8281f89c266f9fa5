/** Where the bytes of a file lie: reserve, punch, share, copy inside the kernel. Offsets and lengths in bytes. */
import { errnos, SysError } from './errno.ts';
import { check, declare, lastErrno, uninterrupted } from './libc.ts';

const fallocateC = declare<(fd: number, mode: number, offset: number, length: number) => number>('fallocate', 'int', [
  'int',
  'int',
  'int64',
  'int64',
]);
const copyFileRangeC = declare<
  (
    from: number,
    fromOffset: BigInt64Array,
    to: number,
    toOffset: BigInt64Array,
    length: number,
    flags: number,
  ) => number
>('copy_file_range', 'int64', ['int', 'void *', 'int', 'void *', 'size_t', 'uint']);
const ioctlInt = declare<(fd: number, request: number, argument: number) => number>('ioctl', 'int', [
  'int',
  'ulong',
  'long',
]);

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;

/** fallocate(2). ENOTSUP where the file system cannot. */
export function fallocate(fd: number, mode: number, offset: number, length: number): void {
  check(
    uninterrupted(() => fallocateC()(fd, mode, offset, length)),
    'fallocate',
  );
}

/** Frees the range, which reads as zeros from then on; the size stays. */
export function punchHole(fd: number, offset: number, length: number): void {
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

const fromOffset = new BigInt64Array(1);
const toOffset = new BigInt64Array(1);

/**
 * copy_file_range(2): up to `length` bytes, inside the kernel, shared instead of copied where the file system can. 0 at the end of `from`.
 * EXDEV across file systems before Linux 5.19, EINVAL for files that are no regular ones.
 */
export function copyFileRange(
  from: number,
  fromPosition: number,
  to: number,
  toPosition: number,
  length: number,
): number {
  fromOffset[0] = BigInt(fromPosition);
  toOffset[0] = BigInt(toPosition);
  return check(
    uninterrupted(() => copyFileRangeC()(from, fromOffset, to, toOffset, length, 0)),
    'copy_file_range',
  );
}

/** _IOW(0x94, 9, int). */
const FICLONE = 0x40049409;

/** Makes `to` share all extents of `from` (btrfs, xfs with reflink). False where that is impossible: another file system, or one that cannot. */
export function cloneFile(from: number, to: number): boolean {
  if (ioctlInt()(to, FICLONE, from) === 0) return true;
  const errno = lastErrno();
  if (errno === errnos.EOPNOTSUPP || errno === errnos.EXDEV || errno === errnos.EINVAL || errno === errnos.ENOTTY)
    return false;
  throw new SysError(errno, 'ioctl FICLONE');
}
