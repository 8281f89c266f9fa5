/**
 * Unlinks a directory tree of any depth that hostile processes may still be rearranging.
 *
 * A directory that is not empty is first renamed to the side, next to the tree's root, and emptied from there. So one descriptor is held whatever
 * the depth, no path has more than one component (nothing can be swapped for a link on the way), and a mount is never crossed: the
 * kernel refuses to rename or remove a mount point.
 */
import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { AT_REMOVEDIR, fchmodat, fdPath, isErrno, renameat2, RENAME_NOREPLACE, unlinkat } from 'troupe/sys';
import { may } from '../privilege/privilege.ts';

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** How often a directory is emptied again because somebody put something new into it. */
const ATTEMPTS = 16;

/**
 * Unlinks `name` in the directory `parent`, and what an earlier attempt moved aside for it (`name+N`). Nothing there is fine.
 *
 * @param deadline of `performance.now()`: nothing more is begun after it
 * @returns false when the deadline came first
 * @throws of what could not go (EBUSY: mounted; EPERM: immutable), after everything else went
 */
export function unlinkTree(parent: string, name: string, deadline = Number.POSITIVE_INFINITY): boolean {
  const parentFd = openSync(parent, DIRECTORY);
  try {
    const aside = readdirSync(parent).filter((entry) => entry.startsWith(`${name}+`));
    return new Removal(parentFd, name, deadline).run([name, ...aside]);
  } finally {
    closeSync(parentFd);
  }
}

class Removal {
  readonly #parentFd: number;
  readonly #name: string;
  readonly #deadline: number;
  #pending: string[] = [];
  #aside = 0;
  #late = false;
  #failure: unknown;

  constructor(parentFd: number, name: string, deadline: number) {
    this.#parentFd = parentFd;
    this.#name = name;
    this.#deadline = deadline;
  }

  run(names: string[]): boolean {
    this.#pending = names;
    for (let name = names.pop(); name !== undefined && !this.#late; name = names.pop()) {
      const directory = name;
      this.#attempt(() => this.#directory(directory));
    }
    if (this.#late) return false;
    if (this.#failure !== undefined) throw this.#failure;
    return true;
  }

  #attempt(work: () => void): void {
    this.#late ||= performance.now() > this.#deadline;
    if (this.#late) return;
    try {
      work();
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) this.#failure ??= error;
    }
  }

  #directory(name: string): void {
    for (let tries = 1; ; tries++) {
      let fd: number;
      try {
        if (!may.override) unlock(this.#parentFd, name);
        fd = openSync(fdPath(this.#parentFd, name), DIRECTORY);
      } catch (error) {
        if (!isErrno(error, 'ENOTDIR', 'ELOOP')) throw error;
        unlinkat(this.#parentFd, name);
        return;
      }
      try {
        for (const entry of readdirSync(fdPath(fd), { encoding: 'buffer' }))
          this.#attempt(() => this.#entry(fd, entry));
      } finally {
        closeSync(fd);
      }
      if (this.#late) return;
      try {
        unlinkat(this.#parentFd, name, AT_REMOVEDIR);
        return;
      } catch (error) {
        if (!isErrno(error, 'ENOTEMPTY', 'EEXIST') || tries === ATTEMPTS) throw error;
      }
    }
  }

  #entry(fd: number, entry: Buffer): void {
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
      if (!may.override) unlock(fd, entry);
      this.#moveAside(fd, entry);
    }
  }

  #moveAside(fd: number, entry: Buffer): void {
    for (;;) {
      const target = `${this.#name}+${this.#aside++}`;
      try {
        renameat2(fd, entry, this.#parentFd, target, RENAME_NOREPLACE);
        this.#pending.push(target);
        return;
      } catch (error) {
        // An earlier attempt's.
        if (!isErrno(error, 'EEXIST', 'ENOTEMPTY')) throw error;
      }
    }
  }
}

/** Nobody but root may empty or move a directory that has no bits for its owner. */
function unlock(directory: number, name: string | Buffer): void {
  try {
    fchmodat(directory, name, 0o700);
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'EOPNOTSUPP', 'ENOTSUP')) throw error;
  }
}
