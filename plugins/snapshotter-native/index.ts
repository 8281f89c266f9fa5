/** Snapshots as whole copies: works on every file system and without any privilege, at the price of the space. */
import { definePlugin } from 'troupe/plugin';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { SnapshotDirectories } from '../lib/snapshot/directories.ts';
import { serveSnapshotter } from '../lib/snapshot/serve.ts';
import { nativeLayout } from './layout.ts';

interface Config {
  readonly root_path: string;
  readonly sync_remove: boolean;
}

export default definePlugin<Config, { resumed: true }>({
  start(ctx) {
    const root = ctx.config.root_path || ctx.root;
    const directories = new SnapshotDirectories({ root, syncRemove: ctx.config.sync_remove, log: ctx.log });
    const layout = nativeLayout(directories.path, (from, to) => directories.copy(from, to));
    return {
      serve: { [SnapshotterDefinition.fullName]: serveSnapshotter(directories, layout) },
      activate: (state) => directories.open(state !== undefined),
      // Nothing here is exclusive: commits and removals that are under way end on this generation.
      suspend: () => ({ resumed: true }),
      stop: () => directories.close(),
    };
  },
});
