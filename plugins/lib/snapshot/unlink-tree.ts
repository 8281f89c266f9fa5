/**
 * Unlinks a directory tree of any depth that hostile processes may still be rearranging.
 *
 * A directory that is not empty is first renamed to the side, next to the tree's root, and emptied from there. So one descriptor is held whatever
 * the depth, no path has more than one component (nothing can be swapped for a link on the way), and a mount is never crossed: the
 * kernel refuses to rename or remove a mount point.
 */
import { constants, readdirSync } from 'node:fs';
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  fdPath,
  isErrno,
  openat,
  renameat2,
  RENAME_NOREPLACE,
  unlinkat,
  withFd,
} from 'troupe/sys';

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** How often a directory is emptied again because somebody put something new into it. */
const ATTEMPTS = 16;

/**
 * Unlinks `name` in the directory `parent`. Side names are `name+N` in `parent`: after a crash they are leftovers like `name` itself.
 * Nothing there is fine.
 * @throws SysError of what could not go (EBUSY: mounted; EPERM: immutable), after everything else went
 */
export function unlinkTree(parent: string, name: string): void {
  withFd(openat(AT_FDCWD, parent, DIRECTORY), (parentFd) => {
    const pending = [name];
    let aside = 0;
    let failure: unknown;
    const moveAside = (fd: number, entry: Buffer): void => {
      for (;;) {
        const target = `${name}+${aside++}`;
        try {
          renameat2(fd, entry, parentFd, target, RENAME_NOREPLACE);
          pending.push(target);
          return;
        } catch (error) {
          // Left by an earlier attempt that a crash cut short.
          if (!isErrno(error, 'EEXIST', 'ENOTEMPTY')) throw error;
        }
      }
    };
    const attempt = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) failure ??= error;
      }
    };
    for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
      const current = directory;
      attempt(() => emptyAndRemove(parentFd, current, (fd, entry) => attempt(() => removeEntry(fd, entry, moveAside))));
    }
    if (failure !== undefined) throw failure;
  });
}

function emptyAndRemove(parentFd: number, name: string, remove: (fd: number, entry: Buffer) => void): void {
  for (let tries = 1; ; tries++) {
    let fd: number;
    try {
      fd = openat(parentFd, name, DIRECTORY);
    } catch (error) {
      if (!isErrno(error, 'ENOTDIR', 'ELOOP')) throw error;
      unlinkat(parentFd, name);
      return;
    }
    withFd(fd, () => {
      for (const entry of readdirSync(fdPath(fd), { encoding: 'buffer' })) remove(fd, entry);
    });
    try {
      unlinkat(parentFd, name, AT_REMOVEDIR);
      return;
    } catch (error) {
      if (!isErrno(error, 'ENOTEMPTY', 'EEXIST') || tries === ATTEMPTS) throw error;
    }
  }
}

function removeEntry(fd: number, entry: Buffer, moveAside: (fd: number, entry: Buffer) => void): void {
  try {
    unlinkat(fd, entry);
    return;
  } catch (error) {
    // Linux answers EISDIR for a directory; POSIX, and some file systems, EPERM.
    if (!isErrno(error, 'EISDIR', 'EPERM')) throw error;
  }
  try {
    unlinkat(fd, entry, AT_REMOVEDIR);
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY', 'EEXIST')) throw error;
    moveAside(fd, entry);
  }
}
