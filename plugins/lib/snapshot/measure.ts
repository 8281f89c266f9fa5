/** How much a snapshot holds, as containerd counts it: every inode once, its allocated blocks of 512 bytes, the root directory included. */
import { constants } from 'node:fs';
import { AT_FDCWD, eachInode, fstatat, isErrno, openat, tryFstatat, withFd } from 'troupe/sys';
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
  const fd = openat(AT_FDCWD, root, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const top = fstatat(fd, '');
  let size = top.blocks * 512;
  let inodes = 1;
  /** Of this file system, with more than one link, and counted. */
  const seen = new Set<bigint>();
  const pending = [DeepPath.root(fd)];
  for (let place = pending.pop(); place !== undefined; place = pending.pop()) {
    const here = place;
    try {
      withFd(here.open(), (directory) =>
        eachInode(directory, (inode) => {
          if (inode.dev !== top.dev) return;
          if (inode.isDirectory) pending.push(here.child(directory, inode.name));
          else if (inode.nlink > 1) {
            if (seen.has(inode.ino)) return;
            seen.add(inode.ino);
          }
          size += inode.blocks * 512;
          inodes += 1;
        }),
      );
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
