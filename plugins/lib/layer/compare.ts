/** Whether an entry of a file system is the same as the one below it, as a layer sees them. */

import { constants, readSync } from 'node:fs';
import { type FileStatus, fdPath, isErrno, lgetxattr, llistxattr, openat, readlinkat, withFd } from 'troupe/sys';
import type { BelowEntry } from './below.ts';
import { type ByteString, toPath } from './name.ts';

const SECOND = 1_000_000_000n;
const CHUNK = 1 << 18;

/**
 * Extended attributes that are content of an image: capabilities, ACLs and what users set. Labels of security modules and overlayfs's bookkeeping belong
 * to the machine.
 */
export function archivedXattrs(dirfd: number, name: ByteString): Map<ByteString, Buffer> {
  const xattrs = new Map<ByteString, Buffer>();
  const path = fdPath(dirfd, toPath(name));
  try {
    for (const key of llistxattr(path)) {
      if (!isArchived(key)) continue;
      const value = lgetxattr(path, key);
      if (value !== undefined) xattrs.set(Buffer.from(key).toString('latin1'), value);
    }
  } catch (error) {
    if (!isErrno(error, 'ENOTSUP')) throw error;
  }
  return xattrs;
}

function isArchived(key: string): boolean {
  return key === 'security.capability' || key.startsWith('user.') || key.startsWith('system.posix_acl_');
}

/**
 * Same kind, mode, owner, device, archived attributes; and but for directories the same size, link target and modification time. When both times are whole
 * seconds they may have been cut off by a layer that was written so, and then the content decides.
 */
export function isSame(dirfd: number, name: ByteString, status: FileStatus, below: BelowEntry): boolean {
  const other = below.status;
  if (status.dev === other.dev && status.ino === other.ino) return true;
  if (status.mode !== other.mode || status.uid !== other.uid || status.gid !== other.gid) return false;
  if (status.rdev !== other.rdev) return false;
  if (status.kind !== 'directory') {
    if (status.size !== other.size || status.mtimeNs !== other.mtimeNs) return false;
    if (status.kind === 'symlink' && !sameTarget(dirfd, name, below)) return false;
  }
  const xattrs = archivedXattrs(dirfd, name);
  if (
    !sameXattrs(
      xattrs,
      below.within((fd) => archivedXattrs(fd, name)),
    )
  )
    return false;
  const truncated = status.mtimeNs % SECOND === 0n;
  return status.kind !== 'file' || !truncated || status.size === 0 || sameContent(dirfd, name, below);
}

function sameTarget(dirfd: number, name: ByteString, below: BelowEntry): boolean {
  const target = readlinkat(dirfd, toPath(name));
  return below.within((fd) => readlinkat(fd, toPath(name))).equals(target);
}

function sameXattrs(a: ReadonlyMap<ByteString, Buffer>, b: ReadonlyMap<ByteString, Buffer>): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a) if (b.get(key)?.equals(value) !== true) return false;
  return true;
}

/** Opens a regular file of a held directory for reading; a FIFO in its place would not block. */
export function openRegular(dirfd: number, name: ByteString): number {
  return openat(dirfd, toPath(name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

function sameContent(dirfd: number, name: ByteString, below: BelowEntry): boolean {
  return withFd(openRegular(dirfd, name), (left) =>
    below.within((other) =>
      withFd(openRegular(other, name), (right) => {
        const a = Buffer.allocUnsafe(CHUNK);
        const b = Buffer.allocUnsafe(CHUNK);
        for (;;) {
          const length = readFully(left, a);
          if (readFully(right, b) !== length || a.compare(b, 0, length, 0, length) !== 0) return false;
          if (length < CHUNK) return true;
        }
      }),
    ),
  );
}

/** Reads until `buffer` is full or the file ends. */
export function readFully(fd: number, buffer: Buffer): number {
  let fill = 0;
  while (fill < buffer.length) {
    const length = readSync(fd, buffer, fill, buffer.length - fill, null);
    if (length === 0) break;
    fill += length;
  }
  return fill;
}
