/** Removes what a layer replaces or deletes, without ever leaving the held directory. */

import { closeSync, constants, readdirSync } from 'node:fs';
import { AT_REMOVEDIR, fdPath, isErrno, openat, unlinkat } from 'troupe/sys';
import { type ByteString, toByteString, toPath } from './name.ts';

/** The names in a directory that `fd` (O_PATH or not) holds, in no particular order. */
export function listNames(fd: number): ByteString[] {
  return readdirSync(fdPath(fd), { encoding: 'buffer' }).map(toByteString);
}

/** Removes `name` and all below it. Nothing there is fine. Links are removed, not followed. */
export function removeTree(dirfd: number, name: ByteString): void {
  try {
    unlinkat(dirfd, toPath(name));
    return;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return;
    // POSIX says EPERM for a directory, Linux EISDIR.
    if (!isErrno(error, 'EISDIR', 'EPERM')) throw error;
  }
  removeDirectory(dirfd, name);
}

/**
 * Depth first with a stack of our own: the depth is the layer's choice. One descriptor is open for each level, which a path of at most 4096 bytes
 * bounds to two thousand; beyond the process's limit the error is EMFILE.
 */
function removeDirectory(dirfd: number, name: ByteString): void {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  const stack: { parent: number; name: ByteString; fd: number; names: ByteString[] }[] = [];
  const descend = (parent: number, child: ByteString): void => {
    const fd = openat(parent, toPath(child), flags);
    stack.push({ parent, name: child, fd, names: listNames(fd) });
  };
  try {
    descend(dirfd, name);
    while (stack.length > 0) {
      const top = stack.at(-1)!;
      const child = top.names.pop();
      if (child === undefined) {
        stack.pop();
        closeSync(top.fd);
        unlinkat(top.parent, toPath(top.name), AT_REMOVEDIR);
        continue;
      }
      try {
        unlinkat(top.fd, toPath(child));
      } catch (error) {
        if (!isErrno(error, 'EISDIR', 'EPERM')) throw error;
        descend(top.fd, child);
      }
    }
  } finally {
    for (const { fd } of stack) closeSync(fd);
  }
}
