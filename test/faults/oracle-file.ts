/** The writing side of checker/oracle.ts: one client's file, each line on its disk before the next thing happens. */
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Line, Want } from './checker/oracle.ts';

export class OracleFile {
  readonly #fd: number;
  #n = 0;

  /** @param name sorts after those of clients that had the same objects before */
  constructor(directory: string, name: string) {
    const { O_APPEND, O_CREAT, O_DSYNC, O_EXCL, O_WRONLY } = constants;
    this.#fd = openSync(join(directory, `${name}.jsonl`), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_DSYNC, 0o600);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** What is about to be asked for. @returns its number */
  ask(call: string, wants: readonly Want[], whole: boolean): number {
    const n = ++this.#n;
    this.#write({ n, say: 'ask', call, wants, whole });
    return n;
  }

  done(n: number): void {
    this.#write({ n, say: 'done' });
  }

  failed(n: number, say: 'refused' | 'lost', why: string): void {
    this.#write({ n, say, why });
  }

  #write(line: Line): void {
    writeSync(this.#fd, `${JSON.stringify(line)}\n`);
  }
}
