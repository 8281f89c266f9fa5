/**
 * Mount points of this plugin, one directory for each generation:
 *
 *   <state>/io.containerd.differ.v1.walking/mounts/
 *   └── 1234.3/       pid of the daemon, generation
 *       └── mount-XXXXXX/     one task's
 *
 * A generation that was replaced may still work in its own, so those of this daemon are cleaned only after a crash: nobody can be in them any more, whatever
 * is still mounted there.
 */
import { mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Log } from 'troupe/plugin';
import { isErrno, MNT_DETACH, unmountAll } from 'troupe/sys';

export class Scratch {
  readonly #root: string;
  readonly #own: string;

  constructor(root: string, generation: number) {
    this.#root = root;
    this.#own = join(root, `${process.pid}.${generation}`);
  }

  /** Made at first use. */
  directory(): string {
    mkdirSync(this.#own, { recursive: true, mode: 0o700 });
    return this.#own;
  }

  /** Takes away what earlier daemons left, and, when this generation is `alone`, what those before it left in this one. */
  clean(log: Log, alone: boolean): void {
    const mine = basename(this.#own);
    for (const name of this.#names()) {
      if (name === mine || (!alone && name.startsWith(`${process.pid}.`))) continue;
      const path = join(this.#root, name);
      try {
        const count = unmountAll(path, MNT_DETACH);
        if (count > 0) log.warn('unmounted what an earlier daemon or a crash left', { path, mounts: count });
        removeEmpty(path);
      } catch (error) {
        log.warn('mounts that were left stay', { path, error: (error as Error).message });
      }
    }
  }

  /** At the end of this generation, whose tasks have ended. */
  remove(): void {
    removeEmpty(this.#own);
  }

  #names(): string[] {
    try {
      return readdirSync(this.#root);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }
}

/** Removes directories, and nothing else: what is left in one is not ours. */
function removeEmpty(path: string): void {
  try {
    for (const name of readdirSync(path)) rmdirSync(join(path, name));
    rmdirSync(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTEMPTY', 'EBUSY', 'ENOTDIR')) throw error;
  }
}
