/** Copies one entry of a lower layer into an upper directory, as overlayfs does before something below is written or linked. */

import { constants, ftruncateSync, readSync, writeSync } from 'node:fs';
import {
  cloneFile,
  copyFileRange,
  type FileStatus,
  isErrno,
  mknodat,
  openat,
  readlinkat,
  symlinkat,
  withFd,
} from 'troupe/sys';
import { attributesOf, type Omissions, setEntry } from './attributes.ts';
import { type ByteString, toPath } from './name.ts';

const CHUNK = 1 << 20;

/** @param status of the entry in `from`; it is no directory. */
export function copyUp(
  from: number,
  name: ByteString,
  status: FileStatus,
  to: number,
  toName: ByteString,
  omissions: Omissions,
): void {
  const target = toPath(toName);
  if (status.kind === 'file') copyContent(from, name, status.size, to, toName);
  else if (status.kind === 'symlink') symlinkat(readlinkat(from, toPath(name)), to, target);
  else mknodat(to, target, (status.mode & constants.S_IFMT) | 0o600, status.rdev);
  setEntry(to, toName, attributesOf(from, name, status), status.kind === 'symlink', omissions);
}

function copyContent(from: number, name: ByteString, size: number, to: number, toName: ByteString): void {
  const read = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const write = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  withFd(openat(from, toPath(name), read), (source) => {
    withFd(openat(to, toPath(toName), write, 0o600), (target) => {
      if (cloneFile(source, target) || copyInKernel(source, target, size)) return;
      ftruncateSync(target, 0);
      const buffer = Buffer.allocUnsafe(Math.min(Math.max(size, 1), CHUNK));
      for (let at = 0; ; ) {
        const length = readSync(source, buffer, 0, buffer.length, at);
        if (length === 0) break;
        for (let done = 0; done < length; ) done += writeSync(target, buffer, done, length - done, at + done);
        at += length;
      }
    });
  });
}

function copyInKernel(source: number, target: number, size: number): boolean {
  try {
    for (let at = 0; at < size; ) {
      const copied = copyFileRange(source, at, target, at, size - at);
      if (copied === 0) return false;
      at += copied;
    }
    return true;
  } catch (error) {
    if (isErrno(error, 'EXDEV', 'EINVAL', 'ENOSYS', 'ENOTSUP')) return false;
    throw error;
  }
}
