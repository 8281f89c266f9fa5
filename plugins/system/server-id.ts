/**
 * Who this daemon is, for clients that remember daemons by it.
 *
 *   <root>/io.containerd.grpc.v1.introspection/
 *   └── uuid      36 characters, no newline; made when it is first asked for
 */
import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, statSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { failpoint } from 'troupe/plugin';
import { fsyncPath, isErrno } from 'troupe/sys';

export class ServerId {
  readonly #file: string;
  #uuid: string | undefined;

  /** `directory`: `<root>/io.containerd.grpc.v1.introspection` */
  constructor(directory: string) {
    this.#file = join(directory, 'uuid');
  }

  uuid(): string {
    this.#uuid ??= this.#read() ?? this.#write(randomUUID());
    return this.#uuid;
  }

  /** Undefined when there is none, or when what is there is none. */
  #read(): string | undefined {
    try {
      const text = readFileSync(this.#file, 'latin1').trim();
      return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? text : undefined;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  #write(uuid: string): string {
    const directory = dirname(this.#file);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const fd = openSync(`${this.#file}.new`, 'w', 0o644);
    try {
      writeSync(fd, uuid);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    failpoint('system.uuid.rename');
    renameSync(`${this.#file}.new`, this.#file);
    fsyncPath(directory);
    return uuid;
  }
}

/** The inode of this process's pid namespace, which tells whose process ids ours are. */
export function pidNamespace(): bigint {
  return statSync('/proc/self/ns/pid', { bigint: true }).ino;
}
