/**
 * What is known of an ingest's data: after so many bytes, its digest began with those. One mark for each write, in a file of
 * fixed slots, the newest of every 256 KiB of data in the slot of its window:
 *
 *     0        offset       6 bytes, big-endian; 0: no mark
 *     6        algorithm    2 bytes: its bits, 256, 384 or 512
 *     8 … 15   the first bytes of the digest of everything before the offset
 *
 * Nothing of an ingest is synced until its commit, and a power cut can leave a file that has its length and not its bytes. Whoever goes
 * on with it reads all of it anyway, for the digest, and compares the marks on the way: the last that holds is where it goes on. That asks
 * for no fsync while data arrives, holds whatever was lost and for whatever reason (a disk that went away under a living kernel, too),
 * and keeps everything that was answered when only the daemon died: a mark is written after its data and before the answer.
 */
import { closeSync, constants, ftruncateSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import type { DigestAlgorithm, Digester } from '../lib/digest/digest.ts';
import { isErrno } from './disk.ts';

const windowBytes = 256 << 10;
const slotBytes = 16;
const checkBytes = 8;

export interface Mark {
  readonly offset: number;
  readonly algorithm: DigestAlgorithm;
  /** In hexadecimal. */
  readonly check: string;
}

export class Marks {
  readonly #path: string;
  readonly #slot = Buffer.alloc(slotBytes);
  #fd: number | undefined;
  /** Where the newest mark is. */
  #newest: number;

  /** @param newest offset of the mark in the file that counts; 0: none. */
  constructor(path: string, newest: number) {
    this.#path = path;
    this.#newest = newest;
  }

  /** Those that a file holds, in order. None when it is missing or of another kind; what is damaged ends it. */
  static read(path: string): Mark[] {
    const marks: Mark[] = [];
    const bytes = readSlots(path);
    for (let at = 0; at + slotBytes <= bytes.length; at += slotBytes) {
      const offset = bytes.readUIntBE(at, 6);
      if (offset === 0) continue;
      if (slotOf(offset) !== at / slotBytes) break;
      const algorithm = `sha${bytes.readUInt16BE(at + 6)}` as DigestAlgorithm;
      if (!['sha256', 'sha384', 'sha512'].includes(algorithm)) break;
      marks.push({ offset, algorithm, check: bytes.toString('hex', at + slotBytes - checkBytes, at + slotBytes) });
    }
    return marks;
  }

  static holds({ offset, algorithm, check }: Mark, digester: Digester): boolean {
    return digester.size === offset && digester.algorithm === algorithm && checkOf(digester) === check;
  }

  /** Notes what the digester has seen. */
  add(digester: Digester): void {
    const { size, algorithm } = digester;
    if (size === this.#newest) return;
    const fd = this.#open();
    this.#slot.writeUIntBE(size, 0, 6);
    this.#slot.writeUInt16BE(Number(algorithm.slice('sha'.length)), 6);
    this.#slot.write(checkOf(digester), slotBytes - checkBytes, 'hex');
    writeSync(fd, this.#slot, 0, slotBytes, slotOf(size) * slotBytes);
    this.#newest = size;
  }

  /** Removes what comes after the mark of that offset; 0: everything. */
  cut(offset: number): void {
    const bytes = offset === 0 ? 0 : (slotOf(offset) + 1) * slotBytes;
    const size = statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0;
    if (size > bytes) ftruncateSync(this.#open(), bytes);
    this.#newest = offset;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #open(): number {
    const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
    this.#fd ??= openSync(this.#path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o644);
    return this.#fd;
  }
}

function slotOf(offset: number): number {
  return Math.floor((offset - 1) / windowBytes);
}

function checkOf(digester: Digester): string {
  const hex = digester.algorithm.length + 1;
  return digester.digest().slice(hex, hex + checkBytes * 2);
}

function readSlots(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EISDIR', 'ENOTDIR')) return Buffer.alloc(0);
    throw error;
  }
}
