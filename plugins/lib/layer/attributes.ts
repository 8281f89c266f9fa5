/**
 * Owner, mode, extended attributes and times of what was extracted, in the order in which they survive: owner first, because chown clears set-user-ID and
 * capabilities; times last.
 *
 * A process without the capability may not give files away, make devices or set some attributes. Such a refusal is noted once and passed over, so that a
 * rootless daemon unpacks what it can; where the capability is there it is an error like any other. Nor may it shut itself out: what the next layer, a copy
 * or a difference has to get into keeps the bits for that (mode 0555 is that of directories in whole families of images).
 */

import { constants, fchmodSync, fchownSync } from 'node:fs';
import {
  AT_FDCWD,
  type FileStatus,
  fchmodat,
  fchownat,
  fdPath,
  fstatat,
  fsetxattr,
  isErrno,
  lgetxattr,
  llistxattr,
  lsetxattr,
  utimensat,
} from 'troupe/sys';
import { type ByteString, toPath } from './name.ts';
import { may } from '../privilege/privilege.ts';

const { S_IRUSR, S_IRWXU } = constants;

export interface Attributes {
  readonly uid: number;
  readonly gid: number;
  /** The low twelve bits; not used for a symbolic link, which has none. */
  readonly mode: number;
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
}

/** What a file has from the moment it is made. */
export interface Born {
  readonly uid: number;
  readonly gid: number;
  /** The low twelve bits. */
  readonly mode: number;
}

/** What a layer asked for and the process may not do, by kind, with the first name it happened to. */
export class Omissions {
  readonly #first = new Map<string, ByteString>();

  note(kind: 'ownership' | 'device' | 'xattr' | 'mode', name: ByteString): void {
    if (!this.#first.has(kind)) this.#first.set(kind, name);
  }

  /** Empty when everything could be done. */
  get kinds(): string[] {
    return [...this.#first.keys()];
  }
}

/** Whether the refusal `error` of making a device is to be passed over. */
export function mayOmitDevice(error: unknown): boolean {
  return !may.device && isErrno(error, 'EPERM', 'EACCES');
}

/** Sets everything on the open regular file `fd`. @param born what it has since it was made; absent: nothing is known */
export function setOpenFile(
  fd: number,
  attributes: Attributes,
  name: ByteString,
  omissions: Omissions,
  born?: Born,
): void {
  if (born?.uid !== attributes.uid || born.gid !== attributes.gid)
    owner(() => fchownSync(fd, attributes.uid, attributes.gid), name, omissions);
  for (const [key, value] of attributes.xattrs) xattr(key, () => fsetxattr(fd, toPath(key), value), name, omissions);
  if (born?.mode !== attributes.mode) fchmodSync(fd, reachable(attributes.mode, S_IRUSR, name, omissions));
  utimensat(fd, null, attributes.atimeNs, attributes.mtimeNs);
}

/**
 * Sets everything on the entry `name` of a held directory, whatever it is, never through a symbolic link.
 * @param known what it has already. For what a hard link has joined it matters beyond the time it takes: chown would take the capabilities that the
 * file's first entry brought and that entries for further links often do not repeat. So no mode is given there.
 */
export function setEntry(
  dirfd: number,
  name: ByteString,
  attributes: Attributes,
  isSymlink: boolean,
  omissions: Omissions,
  known?: { readonly uid: number; readonly gid: number; readonly born?: number },
): void {
  const path = toPath(name);
  setOwnerAndMode(dirfd, path, attributes, isSymlink, omissions, name, known);
  utimensat(dirfd, path, attributes.atimeNs, attributes.mtimeNs);
}

/** As `setEntry` for a directory, but its times: what is written into it later changes them, so they are set at the end. */
export function setDirectory(
  dirfd: number,
  name: ByteString,
  attributes: Attributes,
  omissions: Omissions,
  known?: { readonly uid: number; readonly gid: number; readonly born?: number },
): void {
  setOwnerAndMode(dirfd, toPath(name), attributes, false, omissions, name, known);
}

function setOwnerAndMode(
  dirfd: number,
  path: string | Uint8Array,
  attributes: Attributes,
  isSymlink: boolean,
  omissions: Omissions,
  name: ByteString,
  known: { readonly uid: number; readonly gid: number; readonly born?: number } | undefined,
): void {
  if (known?.uid !== attributes.uid || known.gid !== attributes.gid) {
    owner(() => fchownat(dirfd, path, attributes.uid, attributes.gid), name, omissions);
  }
  if (attributes.xattrs.size > 0) {
    const full = fdPath(dirfd, path);
    for (const [key, value] of attributes.xattrs)
      xattr(key, () => lsetxattr(full, toPath(key), value), name, omissions);
  }
  if (!isSymlink && known?.born !== attributes.mode)
    fchmodat(dirfd, path, entryMode(dirfd, path, attributes.mode, name, omissions));
}

function entryMode(
  dirfd: number,
  path: string | Uint8Array,
  mode: number,
  name: ByteString,
  omissions: Omissions,
): number {
  if (may.override || (mode & S_IRWXU) === S_IRWXU) return mode;
  const { kind } = fstatat(dirfd, path);
  // Devices and pipes are never opened.
  const needed = kind === 'directory' ? S_IRWXU : kind === 'file' ? S_IRUSR : 0;
  return reachable(mode, needed, name, omissions);
}

/** @param needed bits for the owner, without which this process could not go on with the file */
function reachable(mode: number, needed: number, name: ByteString, omissions: Omissions): number {
  if (may.override || (mode & needed) === needed) return mode;
  omissions.note('mode', name);
  return mode | needed;
}

/** The times of a directory that `fd` holds with O_PATH, which utimensat cannot take by itself. */
export function setDirectoryTimes(fd: number, atimeNs: bigint, mtimeNs: bigint): void {
  utimensat(AT_FDCWD, `${fdPath(fd)}/.`, atimeNs, mtimeNs);
}

function owner(set: () => void, name: ByteString, omissions: Omissions): void {
  try {
    set();
  } catch (error) {
    // EINVAL: the id has no place in the user namespace.
    if (may.chown || !isErrno(error, 'EPERM', 'EINVAL')) throw error;
    omissions.note('ownership', name);
  }
}

function xattr(key: ByteString, set: () => void, name: ByteString, omissions: Omissions): void {
  try {
    set();
  } catch (error) {
    // A file system without (these) attributes: containerd goes on without them, and so does every overlay on such a disk.
    if (!isErrno(error, 'ENOTSUP') && (maySet(key) || !isErrno(error, 'EPERM', 'EACCES'))) throw error;
    omissions.note('xattr', name);
  }
}

function maySet(key: ByteString): boolean {
  return key === 'security.capability' ? may.capability : may.trusted;
}

/** Attributes of an entry as it lies on disk, without those that belong to overlayfs's own bookkeeping. */
export function attributesOf(dirfd: number, name: ByteString, status: FileStatus): Attributes {
  return {
    uid: status.uid,
    gid: status.gid,
    mode: status.mode & 0o7777,
    xattrs: xattrsOf(dirfd, name),
    atimeNs: status.atimeNs,
    mtimeNs: status.mtimeNs,
  };
}

function xattrsOf(dirfd: number, name: ByteString): Map<ByteString, Uint8Array> {
  const xattrs = new Map<ByteString, Uint8Array>();
  const path = fdPath(dirfd, toPath(name));
  try {
    for (const key of llistxattr(path)) {
      if (key.startsWith('trusted.overlay.')) continue;
      const value = lgetxattr(path, key);
      if (value !== undefined) xattrs.set(Buffer.from(key).toString('latin1'), value);
    }
  } catch (error) {
    if (!isErrno(error, 'ENOTSUP')) throw error;
  }
  return xattrs;
}
