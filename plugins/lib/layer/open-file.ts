/** The regular file that is being written, from its header to its last byte. */

import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import { beginWriteback } from 'troupe/sys';
import type { TarHeader } from '../tar/format.ts';
import { type Born, type Omissions, setOpenFile } from './attributes.ts';
import { wantedAttributes } from './entry.ts';
import type { ByteString } from './name.ts';

/**
 * A file from this size on, or so much of a larger one, the kernel is told to begin writing at once: layers are synced in the end, and by then most of it
 * is done, beside the inflating. For smaller files the call would cost more than it gains.
 */
const WRITEBACK_FROM = 256 << 10;
const WRITEBACK_EVERY = 8 << 20;

export class OpenFile {
  readonly #fd: number;
  readonly #header: TarHeader;
  readonly path: ByteString;
  readonly #born: Born | undefined;
  /** Bytes that the kernel was not told to write yet. */
  #held = 0;

  /** @param born what it has since it was made, if that is known */
  constructor(fd: number, header: TarHeader, path: ByteString, born: Born | undefined) {
    this.#fd = fd;
    this.#header = header;
    this.path = path;
    this.#born = born;
  }

  write(bytes: Uint8Array, position: number): void {
    let at = this.#header.sparse === undefined ? null : position;
    for (let done = 0; done < bytes.length; ) {
      const written = writeSync(this.#fd, bytes, done, bytes.length - done, at);
      done += written;
      if (at !== null) at += written;
    }
    this.#held += bytes.length;
    if (this.#held >= WRITEBACK_EVERY) this.#beginWriteback();
  }

  /** All bytes are there. */
  finish(omissions: Omissions): void {
    try {
      if (this.#header.sparse !== undefined) ftruncateSync(this.#fd, this.#header.size);
      setOpenFile(this.#fd, wantedAttributes(this.#header), this.path, omissions, this.#born);
      if (this.#held >= WRITEBACK_FROM) this.#beginWriteback();
    } finally {
      this.close();
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #beginWriteback(): void {
    this.#held = 0;
    beginWriteback(this.#fd);
  }
}
