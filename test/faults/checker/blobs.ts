/** 3. Every blob in the records is a file of that size and digest, mode 0444, and nothing else is in blobs/. */
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { type Breach, Ledger } from './breach.ts';
import type { Picture } from './subject.ts';

/** Digests that were computed before, by path, inode, size and time of change: a file that did not change is not read again. */
const seen = new Map<string, string>();

export function checkBlobs({ root, rows }: Pick<Picture, 'root' | 'rows'>): Breach[] {
  const ledger = new Ledger(3);
  const blobs = join(root, 'io.containerd.content.v1.content', 'blobs');
  const files = new Set<string>();
  for (const algorithm of listDirectory(blobs)) {
    const directory = join(blobs, algorithm);
    if (!lstatSync(directory).isDirectory()) ledger.unsettled(directory, 'is no directory of an algorithm');
    else for (const name of listDirectory(directory)) files.add(`${algorithm}:${name}`);
  }
  const sizes = new Map<string, Set<number>>();
  for (const { digest, size } of rows.blobs) sizes.set(digest, (sizes.get(digest) ?? new Set()).add(size));
  for (const [digest, recorded] of sizes) {
    const path = join(blobs, digest.replace(':', '/'));
    if (!files.delete(digest)) {
      ledger.unsettled(path, 'has a record and no file');
      continue;
    }
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) continue; // removed while it was looked at
    if (!stat.isFile()) ledger.unsettled(path, 'is no regular file');
    else if (recorded.size !== 1 || !recorded.has(stat.size))
      ledger.unsettled(path, `has ${stat.size} bytes, and its records say ${[...recorded].join(', ')}`);
    else {
      if ((stat.mode & 0o7777) !== 0o444)
        ledger.unsettled(path, `has mode 0${(stat.mode & 0o7777).toString(8)}, not 0444`);
      const key = `${path} ${stat.ino} ${stat.size} ${stat.ctimeMs}`;
      const actual = seen.get(key) ?? `${digest.split(':')[0]}:${hashFile(path, digest.split(':')[0]!)}`;
      seen.set(key, actual);
      if (actual !== digest) ledger.unsettled(path, `holds ${actual}`);
    }
  }
  for (const digest of files) ledger.unsettled(join(blobs, digest.replace(':', '/')), 'is a file that no record names');
  return ledger.breaches;
}

export function hashFile(path: string, algorithm = 'sha256'): string {
  const hash = createHash(algorithm);
  const buffer = Buffer.alloc(1 << 20);
  const fd = openSync(path, 'r');
  try {
    for (let count = readSync(fd, buffer); count > 0; count = readSync(fd, buffer))
      hash.update(buffer.subarray(0, count));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** Names in a directory; none when there is no directory. */
export function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}
