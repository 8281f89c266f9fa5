/** The FIFO `<bundle>/log`: a shim writes its log to it, and each line becomes a line of the daemon's. */

import { constants } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Log } from 'troupe/plugin';
import { AT_FDCWD, isErrno, mkfifo, openat } from 'troupe/sys';

/** A line is cut here; a shim of containerd writes lines of a few hundred bytes. */
const maxLineBytes = 8 << 10;

/** Lines per second and shim that are passed on; what is over is counted and said once. */
const maxLinesPerSecond = 100;

export class ShimLog {
  readonly #socket: Socket;
  readonly #log: Log;
  readonly #about: { namespace: string; id: string };
  #line: Buffer[] = [];
  #lineBytes = 0;
  #second = 0;
  #lines = 0;
  #dropped = 0;

  /**
   * Opens the FIFO of a bundle, making it when it is missing. Opened for both directions, so that the shim never finds it without a reader, and not blocking;
   * and read as a socket is, since a read of a FIFO through `fs` would hold one of the four threads that all files share.
   */
  constructor(bundle: { path: string; namespace: string; id: string }, log: Log) {
    this.#about = { namespace: bundle.namespace, id: bundle.id };
    this.#log = log;
    const path = join(bundle.path, 'log');
    try {
      mkfifo(path, 0o700);
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error;
    }
    // Not by node:fs: a worker keeps a list of what that opened, and the socket closes it without a word.
    const fd = openat(AT_FDCWD, path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#socket.on('error', () => this.#socket.destroy());
  }

  /** Reads no more; what the shim writes waits in the pipe, for this reader or the next generation's. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    let at = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, at)) {
      this.#add(chunk.subarray(at, end));
      this.#flush();
      at = end + 1;
    }
    this.#add(chunk.subarray(at));
  }

  #add(piece: Buffer): void {
    const kept = piece.subarray(0, maxLineBytes - this.#lineBytes);
    if (kept.length === 0) return;
    this.#line.push(kept);
    this.#lineBytes += kept.length;
  }

  #flush(): void {
    const line = Buffer.concat(this.#line).toString();
    this.#line = [];
    this.#lineBytes = 0;
    if (line === '') return;
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) {
      if (this.#dropped > 0) this.#log.warn('shim log lines dropped', { ...this.#about, lines: this.#dropped });
      this.#second = second;
      this.#lines = 0;
      this.#dropped = 0;
    }
    this.#lines += 1;
    if (this.#lines > maxLinesPerSecond) this.#dropped += 1;
    else this.#pass(line);
  }

  /** Shims write logfmt (`time=… level=info msg="…"`); a line of another form is passed on whole. */
  #pass(line: string): void {
    const level = /(?:^| )level=(\w+)/.exec(line)?.[1];
    const quoted = /(?:^| )msg=("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
    const fields = { ...this.#about, shim: quoted === undefined ? line : unquote(quoted, line) };
    if (level === 'error' || level === 'fatal' || level === 'panic') this.#log.error('shim', fields);
    else if (level === 'warning' || level === 'warn') this.#log.warn('shim', fields);
    else this.#log.debug('shim', fields);
  }
}

function unquote(quoted: string, line: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return line;
  }
}
