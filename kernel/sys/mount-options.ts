/** Options of mount as fstab and containerd write them, turned into the flags and the data of mount(2). */
import { errnos, SysError } from './errno.ts';

export const MS_RDONLY = 0x1;
export const MS_NOSUID = 0x2;
export const MS_NODEV = 0x4;
export const MS_NOEXEC = 0x8;
export const MS_SYNCHRONOUS = 0x10;
export const MS_REMOUNT = 0x20;
export const MS_MANDLOCK = 0x40;
export const MS_DIRSYNC = 0x80;
export const MS_NOSYMFOLLOW = 0x100;
export const MS_NOATIME = 0x400;
export const MS_NODIRATIME = 0x800;
export const MS_BIND = 0x1000;
export const MS_MOVE = 0x2000;
export const MS_REC = 0x4000;
export const MS_SILENT = 0x8000;
export const MS_UNBINDABLE = 0x2_0000;
export const MS_PRIVATE = 0x4_0000;
export const MS_SLAVE = 0x8_0000;
export const MS_SHARED = 0x10_0000;
export const MS_RELATIME = 0x20_0000;
export const MS_I_VERSION = 0x80_0000;
export const MS_STRICTATIME = 0x100_0000;
export const MS_LAZYTIME = 0x200_0000;

/** Any of these makes a call of mount(2) change how an existing mount propagates, and nothing else. */
export const propagationFlags = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;

/** What each word sets and clears; a later word wins over an earlier one, as mount(8) has it. */
const words = new Map<string, { set?: number; clear?: number }>([
  ['defaults', {}],
  ['ro', { set: MS_RDONLY }],
  ['rw', { clear: MS_RDONLY }],
  ['nosuid', { set: MS_NOSUID }],
  ['suid', { clear: MS_NOSUID }],
  ['nodev', { set: MS_NODEV }],
  ['dev', { clear: MS_NODEV }],
  ['noexec', { set: MS_NOEXEC }],
  ['exec', { clear: MS_NOEXEC }],
  ['sync', { set: MS_SYNCHRONOUS }],
  ['async', { clear: MS_SYNCHRONOUS }],
  ['remount', { set: MS_REMOUNT }],
  ['mand', { set: MS_MANDLOCK }],
  ['nomand', { clear: MS_MANDLOCK }],
  ['dirsync', { set: MS_DIRSYNC }],
  ['nosymfollow', { set: MS_NOSYMFOLLOW }],
  ['symfollow', { clear: MS_NOSYMFOLLOW }],
  ['noatime', { set: MS_NOATIME }],
  ['atime', { clear: MS_NOATIME }],
  ['nodiratime', { set: MS_NODIRATIME }],
  ['diratime', { clear: MS_NODIRATIME }],
  ['bind', { set: MS_BIND }],
  ['rbind', { set: MS_BIND | MS_REC }],
  ['move', { set: MS_MOVE }],
  ['silent', { set: MS_SILENT }],
  ['loud', { clear: MS_SILENT }],
  ['unbindable', { set: MS_UNBINDABLE }],
  ['runbindable', { set: MS_UNBINDABLE | MS_REC }],
  ['private', { set: MS_PRIVATE }],
  ['rprivate', { set: MS_PRIVATE | MS_REC }],
  ['slave', { set: MS_SLAVE }],
  ['rslave', { set: MS_SLAVE | MS_REC }],
  ['shared', { set: MS_SHARED }],
  ['rshared', { set: MS_SHARED | MS_REC }],
  ['relatime', { set: MS_RELATIME }],
  ['norelatime', { clear: MS_RELATIME }],
  ['strictatime', { set: MS_STRICTATIME }],
  ['nostrictatime', { clear: MS_STRICTATIME }],
  ['iversion', { set: MS_I_VERSION }],
  ['noiversion', { clear: MS_I_VERSION }],
  ['lazytime', { set: MS_LAZYTIME }],
  ['nolazytime', { clear: MS_LAZYTIME }],
]);

/** Words of fstab that speak to mount(8) and init, never to the kernel; `x-…` and `X-…` belong to them. */
const userspace = new Set(['auto', 'noauto', 'user', 'nouser', 'users', 'owner', 'group', '_netdev', 'nofail']);

export interface MountFlags {
  /** MS_… of mount(2), with propagation and MS_REC among them; `mountOn` makes the separate calls that these need. */
  readonly flags: number;
  /** The file system's own options, joined by commas; '' when there are none. */
  readonly data: string;
}

/**
 * @throws SysError EINVAL for `loop`: a loop device is set up and torn down by whoever owns the file, not by an option.
 */
export function mountOptions(options: readonly string[]): MountFlags {
  let flags = 0;
  const data: string[] = [];
  for (const option of options) {
    const word = words.get(option);
    if (word !== undefined) flags = (flags & ~(word.clear ?? 0)) | (word.set ?? 0);
    else if (option === 'loop' || option.startsWith('loop=')) {
      throw new SysError(
        errnos.EINVAL,
        'mount',
        undefined,
        undefined,
        'option loop: attach the loop device first and mount that',
      );
    } else if (option !== '' && !userspace.has(option) && !/^x-/i.test(option)) data.push(option);
  }
  return { flags, data: data.join(',') };
}
