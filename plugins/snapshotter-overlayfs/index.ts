/** Snapshots as overlayfs layers: one directory of changes each, mounted over those of its parents. */
import { definePlugin } from 'troupe/plugin';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { SnapshotDirectories } from '../lib/snapshot/directories.ts';
import { serveSnapshotter } from '../lib/snapshot/serve.ts';
import { overlayLayout } from './layout.ts';
import { probeOverlay } from './probe.ts';

interface Config {
  readonly root_path: string;
  readonly upperdir_label: boolean;
  readonly sync_remove: boolean;
  readonly mount_options: readonly string[];
}

export default definePlugin<Config, { resumed: true }>({
  start(ctx) {
    const root = ctx.config.root_path || ctx.root;
    const mountOptions = probeOverlay(root, ctx.config.mount_options);
    const directories = new SnapshotDirectories({ root, syncRemove: ctx.config.sync_remove, log: ctx.log });
    const layout = overlayLayout({
      snapshots: directories.path,
      mountOptions,
      upperdirLabel: ctx.config.upperdir_label,
    });
    return {
      serve: { [SnapshotterDefinition.fullName]: serveSnapshotter(directories, layout) },
      activate: (state) => directories.open(state !== undefined),
      // Nothing here is exclusive: commits and removals that are under way end on this generation.
      suspend: () => ({ resumed: true }),
      stop: () => directories.close(),
    };
  },
});
