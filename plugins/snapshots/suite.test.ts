import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import type { PluginDefinition } from 'troupe/plugin';
import { inProcess, skips } from '../../test/helpers/in-process.ts';
import { snapshotsSuite } from '../../test/suites/snapshots.ts';
import native from '../snapshotter-native/index.ts';
import overlayfs from '../snapshotter-overlayfs/index.ts';
import snapshots from './index.ts';

const configs = {
  overlayfs: { root_path: '', upperdir_label: false, sync_remove: false, slow_chown: false, mount_options: [] },
  native: { root_path: '', sync_remove: true },
};

for (const [snapshotter, plugin] of Object.entries({ overlayfs, native })) {
  snapshotsSuite(snapshotter, async (t) => {
    if (process.geteuid!() !== 0) {
      t.log('skipped: mounting takes root');
      return undefined;
    }
    const daemon = inProcess(t, 'snapshots');
    const config = configs[snapshotter as keyof typeof configs];
    const id = `io.containerd.snapshotter.v1.${snapshotter}`;
    const add = () =>
      daemon.add<unknown, unknown>(plugin as PluginDefinition<unknown, unknown>, { id, name: snapshotter, config });
    if (await skips(t, add)) return undefined;
    await daemon.add(snapshots, { id: 'io.containerd.service.v1.snapshots-service', prefix: 'snapshots' });
    return { snapshots: daemon.client(SnapshotsDefinition, { namespace: 'suite' }), snapshotter, scratch: daemon.root };
  });
}
