/** Every attribute of a tree, one line an entry: two trees are the same when their inventories are. For tests and checks of what was unpacked. */

import { createHash } from 'node:crypto';
import { closeSync, constants, openSync, readlinkSync, readSync } from 'node:fs';
import { AT_FDCWD, fstatat, lgetxattr, llistxattr, major, minor } from 'troupe/sys';
import { listNames } from './remove.ts';
import { quote } from './name.ts';

export interface InventoryOptions {
  /** Modification times of directories; on by default. */
  readonly directoryTimes?: boolean;
  /** Names (byte strings) left out of the list, with all below. */
  readonly skip?: (path: string) => boolean;
}

/** Names are joined as byte strings; hard links are told by the first name of their group. */
export function inventory(root: string, options: InventoryOptions = {}): string[] {
  const lines: string[] = [];
  const inodes = new Map<string, string>();
  const visit = (directory: Buffer, prefix: string): void => {
    const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const names = listNames(fd).sort();
    closeSync(fd);
    for (const name of names) {
      const path = `${prefix}${name}`;
      if (options.skip?.(path) === true) continue;
      const full = Buffer.concat([directory, Buffer.from('/'), Buffer.from(name, 'latin1')]);
      lines.push(`${quote(path)} ${describe(full, path, inodes, options)}`);
      if (fstatat(AT_FDCWD, full).kind === 'directory') visit(full, `${path}/`);
    }
  };
  visit(Buffer.from(root), '');
  return lines;
}

function describe(full: Buffer, path: string, inodes: Map<string, string>, options: InventoryOptions): string {
  const status = fstatat(AT_FDCWD, full);
  const parts = [
    status.kind,
    (status.mode & 0o7777).toString(8),
    `${status.uid}:${status.gid}`,
    ...(status.kind === 'directory' && options.directoryTimes === false ? [] : [`mtime=${status.mtimeNs}`]),
  ];
  if (status.kind === 'file') parts.push(`size=${status.size}`, `sha256=${hashFile(full)}`);
  if (status.kind === 'symlink') parts.push(`-> ${quote(readlinkSync(full, 'latin1'))}`);
  if (status.kind === 'character' || status.kind === 'block') parts.push(`${major(status.rdev)}:${minor(status.rdev)}`);
  if (status.kind !== 'directory' && status.nlink > 1) {
    const key = `${status.dev}:${status.ino}`;
    const first = inodes.get(key) ?? path;
    inodes.set(key, first);
    parts.push(`link of ${quote(first)}`);
  }
  for (const key of llistxattr(full).sort()) parts.push(`${key}=${lgetxattr(full, key)?.toString('base64')}`);
  return parts.join(' ');
}

function hashFile(path: Buffer): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const hash = createHash('sha256');
    const buffer = Buffer.allocUnsafe(1 << 16);
    for (let length = readSync(fd, buffer); length > 0; length = readSync(fd, buffer))
      hash.update(buffer.subarray(0, length));
    return hash.digest('hex').slice(0, 16);
  } finally {
    closeSync(fd);
  }
}
