/**
 * Deletions. In a plain root they remove; in an overlay's upper directory they leave the marks of overlayfs: a character device 0:0, or the attribute
 * trusted.overlay.opaque on a directory (kernel documentation, overlayfs.rst, "whiteouts and opaque directories").
 *
 * Each directory is purged at most once, however often a layer says that it is opaque (a layer of 10⁵ markers once cost quadratic time elsewhere).
 */

import { constants } from 'node:fs';
import { fdPath, lsetxattr, mknodat, tryFstatat } from 'troupe/sys';
import { type LowerLayers, OPAQUE } from './lower.ts';
import { type ByteString, join, toPath } from './name.ts';
import type { OwnPaths } from './own.ts';
import { listNames, removeTree } from './remove.ts';
import type { Directory, DirectoryTree } from './tree.ts';

const YES = Buffer.from('y');

/** Hides everything that lower layers have below the directory `name`. */
export function setOpaque(dirfd: number, name: ByteString): void {
  lsetxattr(fdPath(dirfd, toPath(name)), OPAQUE, YES);
}

export function makeWhiteout(dirfd: number, name: ByteString): void {
  mknodat(dirfd, toPath(name), constants.S_IFCHR, 0);
}

export class Whiteouts {
  readonly #tree: DirectoryTree;
  readonly #own: OwnPaths;
  readonly #overlay: boolean;
  /** Directories below which nothing is left but what the layer wrote. */
  readonly #purged = new Set<ByteString>();
  #rootOpaque = false;

  constructor(tree: DirectoryTree, own: OwnPaths, overlay: boolean) {
    this.#tree = tree;
    this.#own = own;
    this.#overlay = overlay;
  }

  /** overlayfs merges the root always, so hiding all below it is a matter of one whiteout a name, when those below are known. */
  get rootOpaque(): boolean {
    return this.#rootOpaque;
  }

  /** The lower layers' `name` is gone. */
  hide(directory: Directory, name: ByteString): void {
    const path = join(directory.path, name);
    const status = tryFstatat(this.#tree.descriptor(directory), toPath(name));
    if (status === undefined) {
      if (!this.#overlay) return;
      makeWhiteout(this.#tree.descriptor(directory), name);
      this.#own.add(path);
      // A symbolic link of a lower layer may have been followed here.
      this.#tree.removed(path, false);
      return;
    }
    if (this.#own.has(path)) {
      if (status.kind === 'directory') this.makeOpaque(this.#tree.child(directory, name));
      return;
    }
    removeTree(this.#tree.descriptor(directory), name);
    this.#tree.removed(path, status.kind === 'directory');
    if (!this.#overlay) return;
    makeWhiteout(this.#tree.descriptor(directory), name);
    this.#own.add(path);
  }

  /** Everything that the lower layers have below `directory` is gone. */
  makeOpaque(directory: Directory): void {
    this.#own.add(directory.path);
    if (this.#purged.has(directory.path)) return;
    if (!this.#own.everything) this.#purge(directory);
    this.#purged.add(directory.path);
    if (!this.#overlay) return;
    if (directory.path === '') {
      this.#rootOpaque = true;
      this.#tree.hideRoot();
      return;
    }
    lsetxattr(fdPath(this.#tree.descriptor(directory), '.'), OPAQUE, YES);
    this.#tree.forget();
  }

  #purge(top: Directory): void {
    const stack = [top];
    for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
      for (const name of listNames(this.#tree.descriptor(directory))) {
        const path = join(directory.path, name);
        const fd = this.#tree.descriptor(directory);
        const status = tryFstatat(fd, toPath(name));
        if (status === undefined) continue;
        if (!this.#own.has(path)) {
          removeTree(fd, name);
          this.#tree.removed(path, status.kind === 'directory');
        } else if (status.kind === 'directory' && !this.#purged.has(path)) {
          this.#purged.add(path);
          stack.push(this.#tree.child(directory, name));
        }
      }
    }
  }
}

/**
 * What an opaque root means to overlayfs: each name that the lower layers show there gets a whiteout, or where the upper has a directory of that name,
 * that one is opaque.
 */
export function hideLowerRoot(root: number, lower: LowerLayers): void {
  for (const name of lower.names()) {
    const status = tryFstatat(root, toPath(name));
    if (status === undefined) makeWhiteout(root, name);
    else if (status.kind === 'directory') setOpaque(root, name);
  }
}
