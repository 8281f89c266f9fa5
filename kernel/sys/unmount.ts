import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isErrno, type SysError } from './errno.ts';
import { MNT_DETACH, UMOUNT_NOFOLLOW, umount2 } from './mount.ts';
import { mountinfo } from './mountinfo.ts';

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
