/**
 * What lies inside a snapshot's directory: the files themselves, a whole copy of the parent's to begin with.
 *
 *   snapshots/12/    the root of the file system that is mounted; empty for a view with a parent, which shows the parent's
 */
import { join } from 'node:path';
import { chmod } from 'node:fs/promises';
import type { Layout } from '../lib/snapshot/serve.ts';

export function nativeLayout(snapshots: string, copy: (from: string, to: string) => Promise<void>): Layout {
  return {
    capabilities: [],

    files: (directory) => directory,

    async fill(directory, { parents, readonly }) {
      const [parent] = parents;
      if (parent === undefined) await chmod(directory, 0o755);
      else if (!readonly) await copy(join(snapshots, parent), directory);
    },

    mounts({ id, parents, readonly }) {
      const shown = readonly ? (parents[0] ?? id) : id;
      return [{ type: 'bind', source: join(snapshots, shown), options: ['rbind', readonly ? 'ro' : 'rw'] }];
    },
  };
}
