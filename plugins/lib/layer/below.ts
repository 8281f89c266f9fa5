/** What a difference is taken against: nothing, the layers below an overlay's upper directory, or a directory. */

import { closeSync, constants } from 'node:fs';
import { type FileStatus, openat, tryFstatat } from 'troupe/sys';
import type { LowerLayers } from './lower.ts';
import { type ByteString, join, toPath } from './name.ts';
import { listNames } from './remove.ts';

export interface BelowEntry {
  readonly status: FileStatus;
  /** Runs `use` with a descriptor of the directory that holds the entry under its name. */
  within<T>(use: (dirfd: number) => T): T;
}

/** One directory of it. */
export interface Below {
  /** All names, for deletions to be found; undefined where deletions have marks of their own. */
  names(): readonly ByteString[] | undefined;
  lookup(name: ByteString): BelowEntry | undefined;
  /** @param entry what `lookup` gave for `name`, a directory */
  descend(name: ByteString, entry: BelowEntry): Below;
  close(): void;
}

export const nothingBelow: Below = {
  names: () => undefined,
  lookup: () => undefined,
  descend: () => nothingBelow,
  close: () => {},
};

export function layersBelow(lower: LowerLayers): Below {
  return new MergedDirectory(lower, '', lower.all);
}

class MergedDirectory implements Below {
  readonly #lower: LowerLayers;
  readonly #path: ByteString;
  readonly #merged: readonly number[];

  constructor(lower: LowerLayers, path: ByteString, merged: readonly number[]) {
    this.#lower = lower;
    this.#path = path;
    this.#merged = merged;
  }

  names(): undefined {
    return undefined;
  }

  lookup(name: ByteString): BelowEntry | undefined {
    const found = this.#lower.lookup(this.#path, this.#merged, name);
    if (found === undefined) return undefined;
    return { status: found.status, within: (use) => this.#lower.within(this.#path, found.layer, use) };
  }

  descend(name: ByteString): Below {
    const merged = this.#lower.lookup(this.#path, this.#merged, name)?.merged ?? [];
    return merged.length === 0 ? nothingBelow : new MergedDirectory(this.#lower, join(this.#path, name), merged);
  }

  close(): void {}
}

/** @param fd a descriptor of the directory that can be read; it stays the caller's to close */
export function directoryBelow(fd: number): Below {
  return new PlainDirectory(fd, () => {});
}

class PlainDirectory implements Below {
  readonly #fd: number;
  readonly close: () => void;

  constructor(fd: number, close: () => void) {
    this.#fd = fd;
    this.close = close;
  }

  names(): ByteString[] {
    return listNames(this.#fd);
  }

  lookup(name: ByteString): BelowEntry | undefined {
    const status = tryFstatat(this.#fd, toPath(name));
    return status === undefined ? undefined : { status, within: (use) => use(this.#fd) };
  }

  descend(name: ByteString): Below {
    const fd = openat(this.#fd, toPath(name), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    return new PlainDirectory(fd, () => closeSync(fd));
  }
}
