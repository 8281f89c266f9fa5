/** How much a snapshot holds, as containerd counts it: every inode once, its allocated blocks of 512 bytes, the root directory included. */
import { constants } from 'node:fs';
import { AT_FDCWD, type FileStatus, fstatat, isErrno, openat, readNames, tryFstatat, withFd } from 'troupe/sys';
import { DeepPath } from './deep-path.ts';

export interface Measure {
  /** Bytes on disk. */
  readonly size: number;
  readonly inodes: number;
}

/**
 * Walks everything below `root` without crossing into a mount and without following a link, so a container that rearranges its files
 * meanwhile can make the figure wrong and nothing else. What vanishes during the walk is not counted.
 */
export function measure(root: string): Measure {
  let size = 0;
  let inodes = 0;
  /** Inodes with more than one link that have been counted. */
  const seen = new Set<string>();
  const count = (status: FileStatus): void => {
    if (status.nlink > 1 && status.kind !== 'directory') {
      const inode = `${status.dev}:${status.ino}`;
      if (seen.has(inode)) return;
      seen.add(inode);
    }
    size += status.blocks * 512;
    inodes += 1;
  };

  const fd = openat(AT_FDCWD, root, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const top = fstatat(fd, '');
  count(top);
  const pending = [DeepPath.root(fd)];
  for (let place = pending.pop(); place !== undefined; place = pending.pop()) {
    const here = place;
    try {
      withFd(here.open(), (directory) => {
        for (const name of readNames(directory)) {
          const status = tryFstatat(directory, name);
          if (status === undefined || status.dev !== top.dev) continue;
          count(status);
          if (status.kind === 'directory') pending.push(here.child(directory, name));
        }
      });
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV')) {
        for (const left of pending) left.close();
        throw error;
      }
    } finally {
      here.close();
    }
  }
  return { size, inodes };
}

/** Whether `path` is a directory; a link to one is not. */
export function isDirectory(path: string): boolean {
  return tryFstatat(AT_FDCWD, path)?.kind === 'directory';
}
