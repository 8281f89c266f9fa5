/**
 * What the layers below an overlay's upper directory show, without mounting them.
 *
 * Extracting straight into an upper directory must give what extracting into the mounted overlay would. Where a layer leans on those below it, a directory
 * that it implies but does not list, a hard link to a file that it does not bring, a symbolic link on the way to an entry, that is looked up here with
 * overlayfs's own rules (kernel documentation, overlayfs.rst): the topmost layer that has a name decides, directories merge until one is opaque
 * or something that is no directory lies between, a character device 0:0 hides what is below it.
 *
 * Not read: `trusted.overlay.redirect` and metacopy, which a kernel writes only with redirect_dir=on or metacopy=on, and which unpacked layers never have.
 */

import { closeSync, constants } from 'node:fs';
import {
  type FileStatus,
  fdPath,
  isErrno,
  lgetxattr,
  O_PATH,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  tryFstatat,
} from 'troupe/sys';
import { type ByteString, toPath } from './name.ts';
import { listNames } from './remove.ts';

export const OPAQUE = 'trusted.overlay.opaque';

/** A name as the merged lower layers show it. `layer` is the index of the layer it comes from, topmost 0. */
export interface LowerEntry {
  readonly status: FileStatus;
  readonly layer: number;
  /** For a directory: the layers that make it up, topmost first. */
  readonly merged: readonly number[];
}

export function isWhiteout(status: FileStatus): boolean {
  return status.kind === 'character' && status.rdev === 0;
}

/** True if the directory `name` below `fd` hides what lower layers have at the same place. */
export function isOpaque(fd: number, name: ByteString): boolean {
  try {
    return lgetxattr(fdPath(fd, toPath(name)), OPAQUE)?.toString('latin1') === 'y';
  } catch (error) {
    if (isErrno(error, 'ENOTSUP')) return false;
    throw error;
  }
}

export class LowerLayers {
  readonly #roots: readonly number[];

  /** @param roots descriptors of the layers' directories (O_PATH will do), topmost first; they stay the caller's to close. */
  constructor(roots: readonly number[]) {
    this.#roots = roots;
  }

  /** All of them: what the root directory is made of. */
  get all(): readonly number[] {
    return this.#roots.map((_, index) => index);
  }

  /**
   * Looks `name` up in a directory.
   * @param directory its path from the root, free of symbolic links
   * @param merged the layers that have it as a directory
   */
  lookup(directory: ByteString, merged: readonly number[], name: ByteString): LowerEntry | undefined {
    let top: FileStatus | undefined;
    const found: number[] = [];
    for (const layer of merged) {
      const fd = this.#open(layer, directory);
      try {
        const status = tryFstatat(fd.fd, toPath(name));
        if (status === undefined) continue;
        if (isWhiteout(status)) break;
        if (status.kind !== 'directory') {
          if (top === undefined) return { status, layer, merged: [] };
          break;
        }
        top ??= status;
        found.push(layer);
        if (isOpaque(fd.fd, name)) break;
      } finally {
        fd.close();
      }
    }
    return top === undefined ? undefined : { status: top, layer: found[0]!, merged: found };
  }

  /** Names that the merged root shows. */
  names(): ByteString[] {
    const names = new Set<ByteString>();
    for (const root of this.#roots) {
      for (const name of listNames(root)) if (this.lookup('', this.all, name) !== undefined) names.add(name);
    }
    return [...names];
  }

  /** Runs `use` with a descriptor of the directory that has the entry, in the layer that it comes from. */
  within<T>(directory: ByteString, layer: number, use: (dirfd: number) => T): T {
    const fd = this.#open(layer, directory);
    try {
      return use(fd.fd);
    } finally {
      fd.close();
    }
  }

  #open(layer: number, directory: ByteString): { fd: number; close(): void } {
    const root = this.#roots[layer]!;
    if (directory === '') return { fd: root, close: () => {} };
    const fd = openat2(root, toPath(directory), O_PATH | constants.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    return { fd, close: () => closeSync(fd) };
  }
}
