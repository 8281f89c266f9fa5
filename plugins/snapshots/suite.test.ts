import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { PluginDefinition } from 'troupe/plugin';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { inProcess } from '../../test/helpers/in-process.ts';
import { scratchBase } from '../../test/helpers/scratch.ts';
import { snapshotsSuite } from '../../test/suites/snapshots.ts';
import native from '../snapshotter-native/index.ts';
import overlayfs from '../snapshotter-overlayfs/index.ts';
import { probeOverlay } from '../snapshotter-overlayfs/probe.ts';
import snapshots from './index.ts';

const configs = {
  overlayfs: { root_path: '', upperdir_label: false, sync_remove: false, slow_chown: false, mount_options: [] },
  native: { root_path: '', sync_remove: true },
};

for (const [snapshotter, plugin] of Object.entries({ overlayfs, native })) {
  snapshotsSuite(
    snapshotter,
    async (t) => {
      const daemon = inProcess(t, 'snapshots');
      const config = configs[snapshotter as keyof typeof configs];
      const id = `io.containerd.snapshotter.v1.${snapshotter}`;
      await daemon.add<unknown, unknown>(plugin as PluginDefinition<unknown, unknown>, {
        id,
        name: snapshotter,
        config,
      });
      await daemon.add(snapshots, { id: 'io.containerd.service.v1.snapshots-service', prefix: 'snapshots' });
      return {
        snapshots: daemon.client(SnapshotsDefinition, { namespace: 'suite' }),
        snapshotter,
        scratch: daemon.root,
      };
    },
    obstacle(snapshotter),
  );
}

/** What the suite needs and is not here. */
function obstacle(snapshotter: string): string | undefined {
  if (process.geteuid!() !== 0) return 'root, to mount';
  if (snapshotter !== 'overlayfs') return undefined;
  const root = mkdtempSync(join(scratchBase(), 'troupe-probe-'));
  try {
    probeOverlay(root, []);
    return undefined;
  } catch (error) {
    return `an overlayfs that works: ${(error as Error).message}`;
  } finally {
    rmSync(root, { recursive: true });
  }
}
