/** One fsync of a directory for many who wait for it. */
import { closeSync, constants, fsync, openSync } from 'node:fs';
import { promisify } from 'node:util';

const fsyncDirectory = promisify(fsync);

/**
 * A directory whose fsyncs are shared: those that ask while one runs all get the next one. With many small blobs at a time that is one
 * fsync for all of them instead of one each.
 */
export class SyncedDirectory {
  readonly #fd: number;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  sync(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #start(): Promise<void> {
    this.#next = undefined;
    this.#running = fsyncDirectory(this.#fd).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }
}
