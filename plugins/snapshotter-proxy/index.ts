/** A snapshotter in another process, which speaks containerd's Snapshots API, as one of ours. */
import { join } from 'node:path';
import { definePlugin } from 'troupe/plugin';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { Remote, type RemoteConfig } from '../lib/proxy/remote.ts';
import { proxySnapshotter } from './service.ts';

interface Config extends RemoteConfig {
  readonly snapshotter: string;
  readonly namespace: string;
}

export default definePlugin<Config>({
  start(ctx) {
    const { config } = ctx;
    const remote = new Remote(config);
    const service = proxySnapshotter({
      remote,
      snapshots: remote.client(SnapshotsDefinition),
      snapshotter: config.snapshotter || config.name,
      namespace: config.namespace,
      root: join(ctx.root, 'snapshots'),
    });
    return { serve: { [SnapshotterDefinition.fullName]: service }, stop: () => remote.close() };
  },
});
