/**
 * From the mounts of a snapshot to directories that can be opened.
 *
 * Nothing is mounted when the mounts say where the files are: a bind mount is its source; an overlay is its upper directory with those below it. Otherwise
 * they are mounted on a directory of our own, for as long as it takes.
 */

import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, failpoint } from 'troupe/plugin';
import {
  detach,
  fdPath,
  MNT_DETACH,
  type MountSpec,
  mountOn,
  O_PATH,
  openat2,
  RESOLVE_IN_ROOT,
  unmountAll,
  withFd,
} from 'troupe/sys';

/** A mount of a snapshot as the API has it; `target` is relative to the root that all of them make up. */
export interface SnapshotMount extends MountSpec {
  readonly target?: string;
}

/** The directories of one overlay, topmost first. */
export interface Layers {
  /** The writable one; undefined for a view. */
  readonly upper: string | undefined;
  readonly lower: readonly string[];
  /** An overlay's upper directory whose lower ones come later: no `lowerdir` was given, which no kernel mounts. */
  readonly detached?: true;
}

/** Where the files of `mounts` are, if that can be said without mounting: undefined otherwise. No mounts are no layers. */
export function layersOf(mounts: readonly SnapshotMount[]): Layers | undefined {
  if (mounts.length === 0) return { upper: undefined, lower: [] };
  const [mount] = mounts;
  if (mounts.length > 1 || mount === undefined || (mount.target ?? '') !== '') return undefined;
  if (mount.type === 'overlay') return overlayLayers(mount);
  if (!isBind(mount)) return undefined;
  return isReadOnly(mount) ? { upper: undefined, lower: [mount.source] } : { upper: mount.source, lower: [] };
}

function overlayLayers(mount: SnapshotMount): Layers | undefined {
  // In user.* form the marks are not ours to write; with redirects or metadata-only copies the upper directory is not the whole difference.
  if (mount.options.includes('userxattr') || mayRedirect(mount.options)) return undefined;
  const value = (name: string): string | undefined =>
    mount.options.findLast((option) => option.startsWith(name))?.slice(name.length);
  const upper = value('upperdir=');
  const below = value('lowerdir=');
  if (below === undefined && upper !== undefined) return { upper: unescaped(upper), lower: [], detached: true };
  const lower: readonly string[] = below?.match(/(?:\\.|[^\\:])+|:(?=:)/gs) ?? [];
  // `lower::data` is a layer of metacopy's.
  if (lower.length === 0 || lower.includes(':')) return undefined;
  return { upper: upper === undefined ? undefined : unescaped(upper), lower: lower.map(unescaped) };
}

/** Commas and colons in overlay's options have a backslash in front (overlayfs.rst). */
function unescaped(path: string): string {
  return path.replace(/\\(.)/gs, '$1');
}

export function isBind(mount: SnapshotMount): boolean {
  return mount.type === 'bind' || mount.options.includes('bind') || mount.options.includes('rbind');
}

function isReadOnly(mount: SnapshotMount): boolean {
  return mount.options.includes('ro');
}

function mayRedirect(options: readonly string[]): boolean {
  return isOn(options, 'redirect_dir') || isOn(options, 'metacopy');
}

function isOn(options: readonly string[], name: string): boolean {
  const given = options.find((option) => option.startsWith(`${name}=`));
  if (given !== undefined) return !['off', 'nofollow'].includes(given.slice(name.length + 1));
  try {
    return readFileSync(`/sys/module/overlay/parameters/${name}`, 'latin1').startsWith('Y');
  } catch {
    return false;
  }
}

/**
 * Runs `use` with the path of a directory that shows `mounts`. Whatever was mounted is unmounted afterwards, also after a failure.
 *
 * @param scratch a directory of the caller's, for mount points; what a killed daemon left there is the caller's to clean (`unmountAll`)
 * @throws Failure InvalidArgument for no mounts; the kernel's words for one that cannot be mounted
 */
export async function withMounted<T>(
  mounts: readonly SnapshotMount[],
  scratch: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  if (mounts.length === 0) throw new Failure('InvalidArgument', 'no mounts were given: invalid argument');
  const point = mkdtempSync(join(scratch, 'mount-'));
  let mounted = 0;
  try {
    failpoint('layer.mount.before');
    for (const mount of mounts) {
      mountAt(point, mount);
      if ((mount.target ?? '') === '') mounted += 1;
    }
    failpoint('layer.mount.after');
    return await use(point);
  } finally {
    // Detached, since a process that another thread is just starting holds copies of all descriptors until its exec: EBUSY would leave the mount for good.
    // By name, with all that is mounted inside it: a table of mounts cannot be read when no descriptor is left.
    for (; mounted > 0; mounted -= 1) detach(point);
    try {
      rmdirSync(point);
    } catch {
      // One that has a target and nothing below it.
      unmountAll(point, MNT_DETACH);
      rmdirSync(point);
    }
  }
}

function mountAt(point: string, mount: SnapshotMount): void {
  try {
    const target = mount.target ?? '';
    if (target === '') mountOn(point, mount);
    else {
      const root = openSync(point, O_PATH | constants.O_DIRECTORY);
      withFd(root, () => withFd(openat2(root, target, O_PATH, RESOLVE_IN_ROOT), (fd) => mountOn(fdPath(fd), mount)));
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('FailedPrecondition', `${(error as Error).message}: failed precondition`, { cause: error });
  }
}

/** Runs `use` with descriptors of directories (readable), and closes them. */
export async function withDirectories<T>(paths: readonly string[], use: (fds: number[]) => Promise<T>): Promise<T> {
  const fds: number[] = [];
  try {
    for (const path of paths) {
      try {
        fds.push(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
      } catch (error) {
        throw new Failure('NotFound', `directory of a mount: ${(error as Error).message}: not found`, { cause: error });
      }
    }
    return await use(fds);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}
