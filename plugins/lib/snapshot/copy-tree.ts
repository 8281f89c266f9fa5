/** Copies a directory tree: what a layer can hold, exactly; whatever the caller may not set (owners, devices, trusted attributes without privilege) degrades. */
import { constants, ftruncateSync, readdirSync, readlinkSync, readSync, writeSync } from 'node:fs';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  cloneFile,
  copyFileRange,
  fchmodat,
  fchownat,
  type FileStatus,
  fdPath,
  fstatat,
  isErrno,
  lgetxattr,
  linkat,
  llistxattr,
  lsetxattr,
  mkdirat,
  mknodat,
  openat,
  symlinkat,
  utimensat,
  withFd,
} from 'troupe/sys';
import { DeepPath } from './deep-path.ts';

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const CHUNK = 1 << 30;
const zeros = Buffer.alloc(64 * 1024);

/** Directories to copy; their times are set when nothing below them changes any more. */
interface Pending {
  readonly from: DeepPath;
  readonly to: DeepPath;
  readonly status: FileStatus;
}

/**
 * Copies what is below `from` into the existing directory `to`, with the attributes of `from` itself. Hard links stay links among each other, times are
 * kept to the nanosecond, holes stay holes where the file system shares or skips them. `from` must not change meanwhile; links are never followed.
 */
export function copyTree(from: string, to: string): void {
  const copied = new Map<string, { directory: DeepPath; name: Buffer }>();
  const finished: Pending[] = [];
  const fromFd = openat(AT_FDCWD, from, DIRECTORY);
  const status = fstatat(fromFd, '');
  const pending: Pending[] = [
    { from: DeepPath.root(fromFd), to: DeepPath.root(openat(AT_FDCWD, to, DIRECTORY)), status },
  ];
  try {
    for (let place = pending.pop(); place !== undefined; place = pending.pop()) {
      const here = place;
      finished.push(here);
      withFd(here.from.open(), (source) =>
        withFd(here.to.open(), (target) => {
          for (const name of readdirSync(fdPath(source), { encoding: 'buffer' })) {
            const entry = fstatat(source, name);
            // A mount below: not part of the snapshot.
            if (entry.dev !== status.dev) continue;
            if (entry.kind === 'directory') {
              mkdirat(target, name, 0o700);
              pending.push({ from: here.from.child(source, name), to: here.to.child(target, name), status: entry });
              continue;
            }
            const inode = `${entry.ino}`;
            const first = entry.nlink > 1 ? copied.get(inode) : undefined;
            if (first !== undefined) {
              withFd(first.directory.open(), (fd) => linkat(fd, first.name, target, name));
              continue;
            }
            copyEntry(source, target, name, entry);
            if (entry.nlink > 1) copied.set(inode, { directory: here.to, name });
          }
        }),
      );
    }
    // Children come after their parents in the list.
    for (const { from: source, to: target, status: attributes } of finished.reverse()) {
      withFd(source.open(), (sourceFd) =>
        withFd(target.open(), (targetFd) => {
          own(targetFd, '', attributes, AT_EMPTY_PATH);
          copyXattrs(fdPath(sourceFd, '.'), fdPath(targetFd, '.'));
          fchmodat(targetFd, '.', attributes.mode & 0o7777);
          utimensat(targetFd, null, attributes.atimeNs, attributes.mtimeNs);
        }),
      );
    }
  } finally {
    for (const { from: source, to: target } of [...pending, ...finished]) {
      source.close();
      target.close();
    }
  }
}

function copyEntry(source: number, target: number, name: Buffer, status: FileStatus): void {
  switch (status.kind) {
    case 'symlink':
      symlinkat(readlinkSync(Buffer.from(fdPath(source, name)), { encoding: 'buffer' }), target, name);
      break;
    case 'file':
      copyFile(source, target, name, status);
      break;
    case 'character':
    case 'block':
      try {
        mknodat(target, name, status.mode & (constants.S_IFMT | 0o7777), status.rdev);
      } catch (error) {
        // Without CAP_MKNOD there are no devices, whiteouts (0:0) aside; a container gets its own anyway.
        if (isErrno(error, 'EPERM')) return;
        throw error;
      }
      break;
    default:
      mknodat(target, name, status.mode & (constants.S_IFMT | 0o7777));
  }
  // In this order: a change of owner takes file capabilities and set-id bits away, and an access list sets the mode.
  own(target, name, status, undefined);
  copyXattrs(fdPath(source, name), fdPath(target, name));
  if (status.kind !== 'symlink') fchmodat(target, name, status.mode & 0o7777);
  utimensat(target, name, status.atimeNs, status.mtimeNs);
}

/** Shares the blocks where the file system can, copies inside the kernel where it cannot. */
function copyFile(source: number, target: number, name: Buffer, { size, blocks, mode }: FileStatus): void {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  withFd(openReadable(source, name, flags, mode), (from) =>
    withFd(openat(target, name, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600), (to) => {
      if (cloneFile(from, to)) return;
      if (blocks * 512 < size) {
        copySparse(from, to, size);
        return;
      }
      for (let position = 0; ; ) {
        const count = copyFileRange(from, position, to, position, CHUNK);
        if (count === 0) return;
        position += count;
      }
    }),
  );
}

/** Who is not root may not read a file of its own that has no bits for its owner (as /etc/shadow has in some images), but may give it one. */
function openReadable(directory: number, name: Buffer, flags: number, mode: number): number {
  try {
    return openat(directory, name, flags);
  } catch (error) {
    if (!isErrno(error, 'EACCES')) throw error;
  }
  fchmodat(directory, name, (mode & 0o7777) | 0o400);
  try {
    return openat(directory, name, flags);
  } finally {
    fchmodat(directory, name, mode & 0o7777);
  }
}

/** The kernel's copy fills holes with zeros; here what is zero becomes a hole, which reads the same. */
function copySparse(from: number, to: number, size: number): void {
  const piece = Buffer.allocUnsafe(64 * 1024);
  for (let position = 0; ; ) {
    const count = readSync(from, piece, 0, piece.length, position);
    if (count === 0) break;
    if (!piece.subarray(0, count).equals(zeros.subarray(0, count))) {
      for (let written = 0; written < count; )
        written += writeSync(to, piece, written, count - written, position + written);
    }
    position += count;
  }
  ftruncateSync(to, size);
}

/** Attributes that the caller may not set (trusted.*, security.*) are left out; so are those that this file system lacks. */
function copyXattrs(from: string | Uint8Array, to: string | Uint8Array): void {
  let names: string[];
  try {
    names = llistxattr(from);
  } catch (error) {
    if (isErrno(error, 'ENOTSUP')) return;
    throw error;
  }
  for (const name of names) {
    const value = lgetxattr(from, name);
    if (value === undefined) continue;
    try {
      lsetxattr(to, name, value);
    } catch (error) {
      if (!isErrno(error, 'EPERM', 'ENOTSUP')) throw error;
    }
  }
}

function own(fd: number, name: string | Buffer, status: FileStatus, flags: number | undefined): void {
  try {
    fchownat(fd, name, status.uid, status.gid, flags);
  } catch (error) {
    if (!isErrno(error, 'EPERM')) throw error;
  }
}
