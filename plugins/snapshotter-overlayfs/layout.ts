/**
 * What lies inside a snapshot's directory, and how it is mounted.
 *
 *   snapshots/12/
 *   ├── fs/      the files: upperdir while the snapshot is active, a lowerdir of its children
 *   └── work/    overlayfs's own, beside it on the same file system; not for views
 *
 * The shapes of the mounts are containerd 1.6's: clients compare and rewrite them.
 */
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from 'troupe/plugin';
import { AT_FDCWD, tryFstatat } from 'troupe/sys';
import type { Layout } from '../lib/snapshot/serve.ts';

export interface OverlayOptions {
  /** Absolute path of `snapshots/`. */
  readonly snapshots: string;
  /** Of every overlay mount, before the directories. */
  readonly mountOptions: readonly string[];
  readonly upperdirLabel: boolean;
}

const UPPERDIR_LABEL = 'containerd.io/snapshot/overlay.upperdir';

export function overlayLayout({ snapshots, mountOptions, upperdirLabel }: OverlayOptions): Layout {
  const upper = (id: string): string => join(snapshots, id, 'fs');
  const bind = (id: string, mode: 'ro' | 'rw') => [{ type: 'bind', source: upper(id), options: [mode, 'rbind'] }];

  return {
    // The snapshots service fills in what stands between the braces.
    capabilities: ['rebase', ...(upperdirLabel ? [`label:${UPPERDIR_LABEL}={root}/{id}/fs`] : [])],

    files: (directory) => join(directory, 'fs'),

    fill(directory, { parents, readonly }) {
      const files = join(directory, 'fs');
      mkdirSync(files);
      chmodSync(files, 0o755);
      // The root of the mount shows the attributes of the topmost layer's root, so a new layer must start with those of the one below it.
      const [parent] = parents;
      if (parent !== undefined) {
        const below = tryFstatat(AT_FDCWD, upper(parent));
        if (below === undefined) {
          throw new Failure('NotFound', `files of parent snapshot ${parent} in ${snapshots}: not found`);
        }
        if (below.uid !== process.geteuid!() || below.gid !== process.getegid!())
          chownIfAllowed(files, below.uid, below.gid);
        chmodSync(files, below.mode & 0o7777);
      }
      if (readonly) return;
      mkdirSync(join(directory, 'work'));
      chmodSync(join(directory, 'work'), 0o711);
    },

    mounts({ id, parents, readonly }) {
      const [nearest] = parents;
      if (nearest === undefined) return bind(id, readonly ? 'ro' : 'rw');
      if (readonly && parents.length === 1) return bind(nearest, 'ro');
      const options = [...mountOptions];
      if (!readonly) options.push(`workdir=${join(snapshots, id, 'work')}`, `upperdir=${upper(id)}`);
      options.push(`lowerdir=${parents.map(upper).join(':')}`);
      return [{ type: 'overlay', source: 'overlay', options }];
    },
  };
}

function chownIfAllowed(path: string, uid: number, gid: number): void {
  try {
    chownSync(path, uid, gid);
  } catch (error) {
    // Without privilege every file belongs to whoever runs the daemon.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
  }
}
