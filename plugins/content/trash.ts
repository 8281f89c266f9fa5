/**
 * Removes files that no record names any more. Two sources:
 *
 * - trash rows, written by the same commit that removed the last record: looked at after every change of the records;
 * - at a start without a predecessor, whatever a crash left: files under blobs/ without a record, and directories without an ingest.
 *
 * Nothing is removed on the word of a row alone. Under the lock that a writer holds while it renames and records, the records are asked
 * once more, so that a sweep and an upload of the same digest cannot cross.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { Failure, failpoint, type Log } from 'troupe/plugin';
import { type Digest, isDigest } from '../lib/digest/digest.ts';
import type { Disk } from './disk.ts';
import { repairIngest } from './ingest.ts';
import type { Store } from './store.ts';
import type { Exclusive } from './writers.ts';

/** Rows per commit that forgets them. */
const batchSize = 256;
/** Longer than a commit without an answer can be on its way, ms. The next start looks at all of them anyway. */
const reconsiderAfter = 120_000;

export class Trash {
  readonly #store: Store;
  readonly #disk: Disk;
  readonly #exclusive: Exclusive;
  readonly #log: Log;
  readonly #signal: AbortSignal;
  #running: Promise<void> | undefined;
  #again = false;

  constructor(store: Store, disk: Disk, exclusive: Exclusive, log: Log, signal: AbortSignal) {
    this.#store = store;
    this.#disk = disk;
    this.#exclusive = exclusive;
    this.#log = log;
    this.#signal = signal;
  }

  /** Removes what is in the trash. Asked while it runs, it looks once more; resolves when nothing is left that can be removed. */
  empty(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Brings records and ingest directories to one state. Before anybody writes. What the records name is there, if only from its beginning. */
  async reconcileIngests(): Promise<void> {
    let begun = 0;
    const known = new Set<string>();
    for (const { ns, ref, directory } of this.#store.ingests.all()) {
      known.add(directory);
      try {
        if (repairIngest(this.#disk, directory, `${ns}/${ref}`)) begun += 1;
      } catch (error) {
        // Nobody else has to wait for it: whoever writes to it begins anew.
        this.#log.warn('cannot bring an ingest in order', { ref: `${ns}/${ref}`, error: (error as Error).message });
      }
      if (known.size % 100 === 0) await turn();
    }
    const leftovers = this.#disk.ingestDirectories().filter((directory) => !known.has(directory));
    for (const directory of leftovers) this.#disk.removeIngest(directory);
    if (begun + leftovers.length > 0)
      this.#log.info('cleared ingests that a crash left half', { begunAnew: begun, directories: leftovers.length });
  }

  /** Removes files under blobs/ that no record names, and tells which records have no file. Beside normal work. */
  async reconcileBlobs(): Promise<void> {
    let seen = 0;
    let removed = 0;
    for (const entry of this.#disk.blobs()) {
      if (this.#signal.aborted) return;
      if (++seen % 1000 === 0) await turn();
      if ('stray' in entry) {
        this.#disk.removeStray(entry.stray);
        removed += 1;
      } else if (!this.#store.isNamed(entry.digest) && (await this.#removeBlob(entry.digest))) removed += 1;
    }
    if (removed > 0) this.#log.info('cleared blobs that no record names', { files: removed });

    let after = '';
    for (;;) {
      const digests = this.#store.digests(after, 1000);
      if (digests.length === 0) return;
      for (const { digest, size } of digests)
        if (!this.#disk.hasBlob(digest, size))
          this.#log.error('content is damaged: its file is missing or of another size; uploading it again heals it', {
            digest,
          });
      after = digests.at(-1)!.digest;
      await turn();
      if (this.#signal.aborted) return;
    }
  }

  /** Looks at a blob again when whatever happens to its record has happened, and removes its file if nothing did. */
  reconsider(digest: Digest): void {
    const timer = setTimeout(() => {
      this.#removeBlob(digest).catch((error) => {
        if (!this.#signal.aborted) this.#log.warn('cannot remove a blob', { digest, error: error.message });
      });
    }, reconsiderAfter);
    timer.unref();
    this.#signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#signal.aborted) {
      this.#again = false;
      const rows = this.#store.trash(batchSize);
      if (rows.length === 0) return;
      const done: number[] = [];
      for (const { seq, path } of rows) {
        try {
          await this.#remove(path);
          done.push(seq);
        } catch (error) {
          if (this.#signal.aborted) return;
          this.#log.warn('cannot remove trash', { path, error: (error as Error).message });
        }
      }
      if (done.length === 0) return;
      failpoint('content.trash.before-forget');
      await this.#store.forgetTrash(done);
      failpoint('content.trash.after-forget');
      if (rows.length === batchSize) this.#again = true;
    }
  }

  async #remove(path: string): Promise<void> {
    const slash = path.indexOf('/');
    const what = path.slice(0, slash);
    const rest = path.slice(slash + 1);
    if (what === 'blobs' && isDigest(rest)) await this.#removeBlob(rest);
    else if (what === 'ingest') await this.#removeIngest(rest);
    else throw new Failure('Internal', `trash of content has a path it does not know: ${path}: internal`);
  }

  /** False when a record names it after all. */
  #removeBlob(digest: Digest): Promise<boolean> {
    return this.#exclusive(
      `digest:${digest}`,
      () => {
        if (this.#store.isNamed(digest)) return false;
        this.#disk.removeBlob(digest);
        return true;
      },
      this.#signal,
    );
  }

  /** @param name `DIRECTORY/NS/REF` */
  async #removeIngest(name: string): Promise<void> {
    const slash = name.indexOf('/');
    const directory = name.slice(0, slash);
    await this.#exclusive(
      `ref:${name.slice(slash + 1)}`,
      () => {
        // The ref may be in use again, and its directory has the same name.
        if (this.#store.ingests.findDirectory(directory) === undefined) this.#disk.removeIngest(directory);
      },
      this.#signal,
    );
  }
}
