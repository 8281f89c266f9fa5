/**
 * The directories of a snapshotter, one per id. What lies inside one is the snapshotter's own affair.
 *
 *   <root>                              0700
 *   ├── snapshots/                      0700
 *   │   ├── 12/                         a snapshot; complete, since it came here by a rename
 *   │   └── new-13/                     one that is being made; at start: left by a crash
 *   └── trash/                          0700
 *       └── 12.9f3a62c1/                removed, to be unlinked in the background; at start: the rest of that work
 *
 * Nothing here knows which ids are in use: that is recorded by the snapshots service, which removes the ids that it does not know at start.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { Failure, failpoint, type Log } from 'troupe/plugin';
import { isErrno, MNT_DETACH, unmountAll } from 'troupe/sys';
import { DiskPool, TaskFailure } from './disk-pool.ts';
import { isDirectory, type Measure } from './measure.ts';
import { unlinkTree } from './unlink-tree.ts';

const NEW = 'new-';
/** How long the plugin's own thread may unlink at a stretch. */
const INLINE_MS = 3;
/** From a failed removal to the next attempt: the first time, and at most. */
const RETRY_MS = 5000;
const LONGEST_RETRY_MS = 300_000;

export interface DirectoriesOptions {
  /** `<root>/<plugin id>` */
  readonly root: string;
  /** Remove answers when everything is unlinked, not when it is out of sight. */
  readonly syncRemove: boolean;
  readonly log: Log;
  /** From a failed removal to the next attempt, ms; doubles with each. Default 5000. */
  readonly retryMs?: number;
}

export class SnapshotDirectories {
  /** Absolute path of `snapshots/`. */
  readonly path: string;
  readonly #trash: string;
  readonly #options: DirectoriesOptions;
  readonly #pool = new DiskPool();
  /** `snapshots/`, open since before any write, so that a sync through it reports every failed one. */
  #fd = -1;
  #syncing: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;
  #syncFailure: Failure | undefined;
  readonly #making = new Map<string, Promise<void>>();
  /** Names in the trash that are being unlinked. */
  readonly #unlinking = new Set<string>();
  #retry: NodeJS.Timeout | undefined;
  #retryMs: number;

  constructor(options: DirectoriesOptions) {
    this.#options = options;
    this.path = join(options.root, 'snapshots');
    this.#trash = join(options.root, 'trash');
    this.#retryMs = options.retryMs ?? RETRY_MS;
  }

  /** Makes the tree and, unless `resumed` (the generation before may still be making one), puts what a crash left into the trash; empties the trash in the background. */
  open(resumed: boolean): void {
    for (const path of [this.#options.root, this.path, this.#trash]) mkdirSync(path, { recursive: true, mode: 0o700 });
    if (this.#fd < 0) this.#fd = openSync(this.path, 'r');
    if (!resumed) for (const name of readdirSync(this.path)) if (name.startsWith(NEW)) this.#discard(name);
    this.#emptyTrash();
  }

  /** After it nothing runs in the background; `open` works again. */
  async close(): Promise<void> {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    await this.#pool.close();
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Absolute path of the snapshot's directory. @throws InvalidArgument when `id` is no id, so that no path can lead elsewhere. */
  directory(id: string): string {
    if (!/^[1-9][0-9]{0,18}$/.test(id)) throw new Failure('InvalidArgument', `snapshot id "${id}": invalid argument`);
    return join(this.path, id);
  }

  has(id: string): boolean {
    return isDirectory(this.directory(id));
  }

  /** Makes the directory of `id`, 0700 unless `fill` changes that, with what `fill` puts in; is content when it is there. Whoever asks while it is being made waits for the same. */
  make(id: string, fill: (directory: string) => Promise<void> | void): Promise<void> {
    const running = this.#making.get(id) ?? this.#make(id, fill).finally(() => this.#making.delete(id));
    this.#making.set(id, running);
    return running;
  }

  async #make(id: string, fill: (directory: string) => Promise<void> | void): Promise<void> {
    if (this.has(id)) return;
    const made = join(this.path, `${NEW}${id}`);
    if (isDirectory(made)) await this.#discard(`${NEW}${id}`);
    failpoint('snapshotter.prepare.mkdir');
    mkdirSync(made, { mode: 0o700 });
    try {
      await fill(made);
      failpoint('snapshotter.prepare.rename');
      renameSync(made, this.directory(id));
      failpoint('snapshotter.prepare.renamed');
    } catch (error) {
      if (isDirectory(made)) await this.#discard(`${NEW}${id}`);
      throw error;
    }
  }

  /** @throws NotFound */
  require(id: string): string {
    const directory = this.directory(id);
    if (isDirectory(directory)) return directory;
    throw new Failure('NotFound', `directory of snapshot ${id} in ${this.path}: not found`);
  }

  /** Ids that have a directory. */
  list(): string[] {
    return readdirSync(this.path).filter((name) => /^[1-9][0-9]*$/.test(name));
  }

  measure(path: string): Promise<Measure> {
    return this.#pool.measure(path);
  }

  copy(from: string, to: string): Promise<void> {
    return this.#pool.copy(from, to);
  }

  /**
   * Everything written to the file system before this call is durable after it. One syncfs serves all that ask while another is running: theirs
   * must begin after their call, so it is the next one.
   * @throws Unavailable after the first failure of the kernel's, for ever: it reports a lost write once, and it may have been anybody's.
   */
  sync(): Promise<void> {
    if (this.#syncing === undefined) return this.#startSync();
    this.#nextSync ??= this.#syncing.then(
      () => this.#startSync(),
      () => this.#startSync(),
    );
    return this.#nextSync;
  }

  #startSync(): Promise<void> {
    this.#nextSync = undefined;
    const running = this.#runSync().finally(() => {
      if (this.#syncing === running) this.#syncing = undefined;
    });
    this.#syncing = running;
    return running;
  }

  async #runSync(): Promise<void> {
    if (this.#syncFailure !== undefined) throw this.#syncFailure;
    failpoint('snapshotter.commit.sync');
    try {
      await this.#pool.sync(this.#fd);
    } catch (error) {
      // The kernel was not asked: no write is known to be lost, and the next attempt may succeed.
      if (!(error instanceof TaskFailure)) throw error;
      this.#syncFailure = new Failure('Unavailable', `sync of ${this.path}: ${(error as Error).message}: unavailable`);
      this.#options.log.error('writes were lost; no snapshot is committed until the daemon is started anew', {
        path: this.path,
        error: (error as Error).message,
      });
      throw this.#syncFailure;
    }
    failpoint('snapshotter.commit.synced');
  }

  /** Unmounts what is mounted below the directory and takes it out of sight; unlinks it in the background. Nothing there is fine. */
  async remove(id: string): Promise<void> {
    const directory = this.directory(id);
    // A snapshot that is just being made for a caller that is gone would appear after its removal.
    await this.#making.get(id)?.catch(() => {});
    if (!isDirectory(directory)) return;
    failpoint('snapshotter.remove.unmount');
    if (mayHaveMounts(directory)) unmountAll(directory, MNT_DETACH);
    const unlinked = this.#discard(id);
    if (this.#options.syncRemove) await unlinked;
  }

  /** Renames an entry of `snapshots/` into the trash at once; the promise is of its unlinking, and never rejects. */
  #discard(name: string): Promise<void> {
    const target = `${name}.${randomBytes(4).toString('hex')}`;
    failpoint('snapshotter.remove.rename');
    try {
      renameSync(join(this.path, name), join(this.#trash, target));
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return Promise.resolve();
      throw error;
    }
    failpoint('snapshotter.remove.renamed');
    return this.#unlink(target);
  }

  async #unlink(name: string): Promise<void> {
    if (this.#unlinking.has(name)) return;
    this.#unlinking.add(name);
    try {
      // What a container leaves is small, and is gone sooner than a pool thread has started. Whoever waits for its rename is answered first.
      await setImmediate();
      if (this.#fd >= 0 && !unlinkTree(this.#trash, name, performance.now() + INLINE_MS)) {
        await this.#pool.unlink(this.#trash, name);
      }
      if (this.#retry === undefined) this.#retryMs = this.#options.retryMs ?? RETRY_MS;
    } catch (error) {
      // It stays in the trash and is tried again: a limit of open files ends, a mount goes away.
      if (this.#fd >= 0) {
        this.#retryLater();
        this.#options.log.warn('removed snapshot cannot be unlinked', {
          path: join(this.#trash, name),
          error: (error as Error).message,
        });
      }
    } finally {
      this.#unlinking.delete(name);
    }
  }

  #retryLater(): void {
    if (this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      if (this.#fd < 0) return;
      try {
        this.#emptyTrash();
      } catch {
        this.#retryLater();
      }
    }, this.#retryMs).unref();
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  #emptyTrash(): void {
    for (const name of readdirSync(this.#trash)) void this.#unlink(name);
  }
}

/** A look at the text of the table, which is far cheaper than its parsing on a machine with hundreds of mounts. */
function mayHaveMounts(directory: string): boolean {
  const name = `/${basename(dirname(directory))}/${basename(directory)}`;
  const table = readFileSync('/proc/self/mountinfo');
  return table.includes(`${name}/`) || table.includes(`${name} `);
}
