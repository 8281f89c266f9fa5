import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import { check, declare } from './libc.ts';

const syncfsC = declare<(fd: number) => number>('syncfs', 'int', ['int']);
const syncFileRangeC = declare<(fd: number, offset: number, length: number, flags: number) => number>(
  'sync_file_range',
  'int',
  ['int', 'int64', 'int64', 'uint'],
);
const ioctlPointer = declare<(fd: number, request: number, argument: Uint8Array) => number>('ioctl', 'int', [
  'int',
  'ulong',
  'void *',
]);

/** syncfs(2): everything of the file system that `fd` is on. Reports a write-back error once per open file, since Linux 5.8, so keep `fd` from before the writes. */
export function syncfs(fd: number): void {
  check(syncfsC()(fd), 'syncfs');
}

/** SYNC_FILE_RANGE_WRITE. */
const WRITE = 2;

/**
 * Has the kernel begin to write what `fd` has in memory, and does not wait (sync_file_range(2)): a later sync has less to do. Promises nothing, so whatever
 * it says is not looked at; not every file system can.
 */
export function beginWriteback(fd: number): void {
  syncFileRangeC()(fd, 0, 0, WRITE);
}

/** fsync(2) of a file or directory by path; what makes a rename or a new name durable. */
export function fsyncPath(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** _IOR('X', 125, __u32). */
const FS_IOC_SHUTDOWN = 0x8004587d;

/** Ends a file system on the spot: 'flush' writes its log first, 'discard' loses what was not synced, as a power cut does. */
export type ShutdownMode = 'default' | 'flush' | 'discard';

/** For fault tests only: `fd` is the root of an ext4, xfs or f2fs that the test owns; afterwards every access is EIO until it is mounted again. */
export function shutdownFilesystem(fd: number, mode: ShutdownMode): void {
  const argument = Buffer.alloc(4);
  argument.writeUInt32LE({ default: 0, flush: 1, discard: 2 }[mode]);
  check(ioctlPointer()(fd, FS_IOC_SHUTDOWN, argument), 'ioctl FS_IOC_SHUTDOWN');
}
