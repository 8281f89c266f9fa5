/** statx(2) as C has it: the call, and what lies where in its answer. */
import { constants } from 'node:fs';
import { type CString, declare } from './libc.ts';

export const statxC = declare<
  (dirfd: number, path: CString, flags: number, mask: number, answer: Uint8Array) => number
>('statx', 'int', ['int', 'const char *', 'int', 'uint', 'void *']);

/** What is asked for (linux/stat.h): all that stat(2) tells; and as little as a walk that counts needs. */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_TYPE_NLINK_INO_BLOCKS = 0x1 | 0x4 | 0x100 | 0x400;

/** struct statx, which has the same offsets on every architecture. Whoever calls has one of its own, which says what it says until its next call. */
export class StatxAnswer {
  readonly bytes: Buffer = Buffer.alloc(256);

  get mode(): number {
    return this.bytes.readUInt16LE(28);
  }

  /** S_IFREG and its kin. */
  get kind(): number {
    return this.mode & constants.S_IFMT;
  }

  get nlink(): number {
    return this.bytes.readUInt32LE(16);
  }

  get ino(): bigint {
    return this.bytes.readBigUInt64LE(32);
  }

  get size(): number {
    return this.#uint53(40);
  }

  /** Allocated, in units of 512 bytes. */
  get blocks(): number {
    return this.#uint53(48);
  }

  /** Of the file system. */
  get dev(): number {
    return makedev(this.bytes.readUInt32LE(136), this.bytes.readUInt32LE(140));
  }

  /** Of the device that the file is. */
  get rdev(): number {
    return makedev(this.bytes.readUInt32LE(128), this.bytes.readUInt32LE(132));
  }

  #uint53(offset: number): number {
    return this.bytes.readUInt32LE(offset) + this.bytes.readUInt32LE(offset + 4) * 0x1_0000_0000;
  }
}

/** A device number as the kernel packs it in 32 bits: 12 bits of major, 20 of minor. */
export function makedev(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}
