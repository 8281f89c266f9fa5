/**
 * Layers of an image are unpacked in parallel, each into an upper directory of its own, before it is known what they will lie on. What depends on
 * that is settled here, once the layers below are in place.
 */

import { constants } from 'node:fs';
import { isErrno, O_PATH, openat2, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, withFd } from 'troupe/sys';
import { attributesOf, Omissions, setDirectoryTimes, setEntry } from './attributes.ts';
import type { Deferred } from './extract.ts';
import type { LowerLayers } from './lower.ts';
import { type ByteString, toPath } from './name.ts';
import { hideLowerRoot } from './whiteout.ts';

/**
 * Gives directories that the layer implied the attributes of those below, and hides what an opaque root hides.
 *
 * @param upper a descriptor of the upper directory that the layer was unpacked into without knowing `lower`
 * @returns false when the layer has to be unpacked anew with the layers below known: it links to a file of theirs, or a directory that it implied is a
 * symbolic link or a file there, so that its entries belong elsewhere or nowhere. Nothing was changed then that unpacking anew would not make.
 */
export function completeLayer(upper: number, lower: LowerLayers, deferred: Deferred): boolean {
  if (deferred.incomplete) return false;
  const merged = new Map<ByteString, readonly number[]>([['', lower.all]]);
  const omissions = new Omissions();
  for (const { path, listed } of deferred.implied) {
    const slash = path.lastIndexOf('/');
    const directory = path.slice(0, Math.max(slash, 0));
    const name = path.slice(slash + 1);
    const parent = mergedOf(lower, merged, directory);
    const found = parent.length === 0 ? undefined : lower.lookup(directory, parent, name);
    if (found === undefined) continue;
    if (found.status.kind !== 'directory') return false;
    if (listed) continue;
    const attributes = lower.within(directory, found.layer, (fd) => attributesOf(fd, name, found.status));
    try {
      withFd(
        openat2(upper, toPath(path), O_PATH | constants.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS),
        (fd) => {
          setEntry(fd, '.', attributes, false, omissions);
          setDirectoryTimes(fd, attributes.atimeNs, attributes.mtimeNs);
        },
      );
    } catch (error) {
      // A later entry put something else in its place.
      if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    }
  }
  if (deferred.rootOpaque) hideLowerRoot(upper, lower);
  return true;
}

/** The layers that make up a directory; the directory is one in all that are listed, so that no link is on the way. */
function mergedOf(lower: LowerLayers, known: Map<ByteString, readonly number[]>, path: ByteString): readonly number[] {
  const already = known.get(path);
  if (already !== undefined) return already;
  const slash = path.lastIndexOf('/');
  const directory = path.slice(0, Math.max(slash, 0));
  const parent = mergedOf(lower, known, directory);
  const merged = parent.length === 0 ? [] : (lower.lookup(directory, parent, path.slice(slash + 1))?.merged ?? []);
  known.set(path, merged);
  return merged;
}
