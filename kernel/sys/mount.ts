import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnos, isErrno, type Path, SysError } from './errno.ts';
import { type CString, check, cstring, declare, lastErrno } from './libc.ts';
import { MS_BIND, MS_REC, MS_REMOUNT, mountOptions, propagationFlags } from './mount-options.ts';
import { mountinfo } from './mountinfo.ts';
import { mountLongOverlay } from './overlay.ts';

const mountC = declare<
  (source: CString, target: CString, fstype: CString, flags: number, data: CString | null) => number
>('mount', 'int', ['const char *', 'const char *', 'const char *', 'ulong', 'const char *']);
const umount2C = declare<(target: CString, flags: number) => number>('umount2', 'int', ['const char *', 'int']);

export const MNT_FORCE = 1;
/** Out of sight at once, gone when nobody uses it any more. */
export const MNT_DETACH = 2;
export const MNT_EXPIRE = 4;
/** A symbolic link at the end of the target is not followed. */
export const UMOUNT_NOFOLLOW = 8;

/** mount(2) copies at most a page of data, with its NUL; beyond it the call answers EINVAL, or silently cuts on old kernels. */
const PAGE_SIZE = 4096;

/**
 * mount(2), one call. Data of overlayfs may be longer than a page (`mountLongOverlay`); of other file systems it is E2BIG then.
 * @throws SysError EINVAL, EBUSY, ENOENT, EPERM … with source and target
 */
export function mount(source: Path, target: Path, fstype: string, flags: number, data = ''): void {
  if (Buffer.byteLength(data) >= PAGE_SIZE) {
    if (fstype === 'overlay' && (flags & (MS_REMOUNT | MS_BIND)) === 0) {
      mountLongOverlay(source, target, flags, data, mount);
      return;
    }
    throw new SysError(
      errnos.E2BIG,
      'mount',
      source,
      target,
      `${Buffer.byteLength(data)} bytes of options, and a page is the limit`,
    );
  }
  const result = mountC()(
    cstring(source, 'mount'),
    cstring(target, 'mount'),
    cstring(fstype, 'mount'),
    flags,
    data === '' ? null : cstring(data, 'mount'),
  );
  if (result === 0) return;
  throw new SysError(
    lastErrno(),
    'mount',
    source,
    target,
    `type ${fstype || 'none'}${data === '' ? '' : `, options ${shorten(data)}`}`,
  );
}

/** The triple that the containerd API speaks of (containerd.types.Mount), without its target. */
export interface MountSpec {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/**
 * Mounts what a list of options describes, in the two or three calls that the kernel wants: the mount; then its propagation, which mount(2)
 * changes only alone; then, for a bind mount, ro and its like, which the first call ignores (mount(2), "MS_BIND" and "MS_REMOUNT"). When a later
 * call fails the mount is taken away again, so that no writable mount stands where a read-only one was asked for.
 */
export function mountOn(target: string, spec: MountSpec): void {
  const { flags, data } = mountOptions(spec.options);
  const propagation = flags & propagationFlags;
  // MS_REC belongs to a bind, or to the propagation when there is no bind.
  const own = flags & ~propagationFlags & ~((flags & MS_BIND) === 0 ? MS_REC : 0);
  const alone = propagation !== 0 && own === 0 && data === '' && (spec.type === '' || spec.type === 'none');
  if (!alone) mount(spec.source, target, spec.type, own, data);
  try {
    if (propagation !== 0) mount('none', target, '', propagation | (flags & MS_REC));
    const perMount = own & ~(MS_BIND | MS_REC);
    if ((own & MS_BIND) !== 0 && (own & MS_REMOUNT) === 0 && perMount !== 0) {
      mount('none', target, '', perMount | MS_BIND | MS_REMOUNT);
    }
  } catch (error) {
    if (!alone && (own & MS_REMOUNT) === 0) umount2C()(target, MNT_DETACH | UMOUNT_NOFOLLOW);
    throw error;
  }
}

/** umount2(2). EINVAL when nothing is mounted there, EBUSY when it is in use. */
export function umount2(target: Path, flags = 0): void {
  check(umount2C()(cstring(target, 'umount2'), flags), 'umount2', target);
}

function shorten(data: string): string {
  return data.length > 256 ? `${data.slice(0, 256)}… (${data.length} characters)` : data;
}

/** Mount points at `path` or below it, oldest first. A link at the end of `path` is not followed. */
export function mountsBelow(path: string): Buffer[] {
  const base = Buffer.from(join(realpathSync(dirname(path)), basename(path)));
  const root = base.equals(Buffer.from('/'));
  const slash = '/'.charCodeAt(0);
  return mountinfo()
    .map((mount) => mount.mountPointBytes)
    .filter(
      (point) =>
        root ||
        (point.subarray(0, base.length).equals(base) && (point.length === base.length || point[base.length] === slash)),
    );
}

/**
 * Unmounts everything at `path` and below, whatever is stacked or nested, newest first. Nothing at `path` is fine.
 * @param flags MNT_DETACH for what is in use.
 * @returns how many mounts it took away
 * @throws SysError EBUSY of the one that could not be unmounted, after all others were tried
 */
export function unmountAll(path: string, flags = 0): number {
  let count = 0;
  for (;;) {
    let failure: SysError | undefined;
    let progress = false;
    const points = existing(path);
    // Newest first undoes stacks and nests; a mount that was moved below a younger one is EBUSY at first and goes in the next round.
    for (const point of points.reverse()) {
      try {
        umount2(point, flags | UMOUNT_NOFOLLOW);
        progress = true;
        count++;
      } catch (error) {
        // EINVAL, ENOENT: went with its parent (MNT_DETACH, propagation), or by another's hand.
        if (!isErrno(error, 'EINVAL', 'ENOENT')) failure ??= error as SysError;
      }
    }
    if (points.length === 0) return count;
    if (!progress) {
      if (failure !== undefined) throw failure;
      return count;
    }
  }
}

function existing(path: string): Buffer[] {
  try {
    return mountsBelow(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

/** Takes away what is mounted at `path` alone, at once, in use or not. False when nothing was. */
export function detach(path: string): boolean {
  try {
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    return true;
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ENOENT')) return false;
    throw error;
  }
}
