/**
 * What a new file or directory has from the moment it is made: then calls that would set the same again are left out, which in most layers is two of the
 * six that a small file takes, and the two that write to the journal.
 *
 * The kernel gives a new file the mode that is asked for less the umask, and the process's ids (open(2), mkdir(2)). It does otherwise below a directory
 * with set-group-ID, in one with a default access control list, and on a file system that is mounted with `grpid`. So the root is looked at for the first
 * two before anything is made, an entry that brings either ends it for the rest of the layer, and the first file that is made is looked at for the third.
 */

import { fdPath, fstatat, isErrno, lgetxattr } from 'troupe/sys';
import { may } from '../privilege/privilege.ts';
import type { Born } from './attributes.ts';
import type { ByteString } from './name.ts';

const DEFAULT_ACL = 'system.posix_acl_default';
const PERMISSIONS = 0o777;
const S_ISGID = 0o2000;

export class Birth {
  #plain: boolean;
  #looked = false;
  readonly #uid = process.geteuid!();
  readonly #gid = process.getegid!();

  /**
   * @param root a descriptor of the root directory, which is empty
   * @param exact the thread's umask is 0
   */
  constructor(root: number, exact: boolean) {
    this.#plain = exact && may.override && isPlain(root);
  }

  /** What mode to make a file or a directory with, that is to have `mode` in the end. */
  mode(mode: number, otherwise: number): number {
    return this.#plain ? mode & PERMISSIONS : otherwise;
  }

  /** What something has that was made with `mode(wanted, …)`; undefined: look, or set everything. Asked before it is made. */
  of(wanted: number): Born | undefined {
    return this.#plain ? { uid: this.#uid, gid: this.#gid, mode: wanted & PERMISSIONS } : undefined;
  }

  /** The first file is there: is it as it should be? */
  look(born: Born | undefined, fd: number): Born | undefined {
    if (born === undefined || this.#looked) return born;
    this.#looked = true;
    const { uid, gid, mode } = fstatat(fd, '');
    if (uid === born.uid && gid === born.gid && (mode & 0o7777) === born.mode) return born;
    this.end();
    return undefined;
  }

  /** A directory gets these: whatever is made below may have others than it was made with. */
  directory({ mode, xattrs }: { readonly mode: number; readonly xattrs?: ReadonlyMap<ByteString, Uint8Array> }): void {
    if ((mode & S_ISGID) !== 0 || xattrs?.has(DEFAULT_ACL) === true) this.end();
  }

  /** Nothing is known from here on. */
  end(): void {
    this.#plain = false;
  }
}

function isPlain(root: number): boolean {
  if ((fstatat(root, '').mode & S_ISGID) !== 0) return false;
  try {
    return lgetxattr(fdPath(root, '.'), DEFAULT_ACL) === undefined;
  } catch (error) {
    if (isErrno(error, 'ENOTSUP')) return true;
    throw error;
  }
}
