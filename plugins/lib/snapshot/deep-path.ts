/**
 * Places in a tree that may be deeper than PATH_MAX (4096 bytes) and wider than the descriptors that a process may hold: each is a held
 * directory and a short path below it, resolved by the kernel without links and without leaving the file system.
 */
import { closeSync, constants } from 'node:fs';
import { openat2, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV } from 'troupe/sys';

/** A path that grows beyond this becomes a held directory of its own; well below PATH_MAX, so that one more name (255 bytes) always fits. */
const LONGEST_PATH = 2048;
const SLASH = Buffer.from('/');

interface Base {
  readonly fd: number;
  users: number;
}

export class DeepPath {
  readonly #base: Base;
  readonly #path: Buffer;

  private constructor(base: Base, path: Buffer) {
    this.#base = base;
    this.#path = path;
    base.users += 1;
  }

  /** Takes over `fd`, an open directory: it is closed when the last place below it is. */
  static root(fd: number): DeepPath {
    return new DeepPath({ fd, users: 0 }, Buffer.from('.'));
  }

  /** The entry `name` of this directory; `fd` is this directory opened. Close what is returned. */
  child(fd: number, name: Buffer): DeepPath {
    if (this.#path.length <= LONGEST_PATH) return new DeepPath(this.#base, Buffer.concat([this.#path, SLASH, name]));
    return DeepPath.root(openDirectory(fd, name));
  }

  /** @throws SysError ELOOP or ENOTDIR when it is no directory (any more), EXDEV when something is mounted there. */
  open(): number {
    return openDirectory(this.#base.fd, this.#path);
  }

  close(): void {
    this.#base.users -= 1;
    if (this.#base.users === 0) closeSync(this.#base.fd);
  }
}

function openDirectory(fd: number, path: Buffer): number {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  return openat2(fd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}
