/** A differ in another process, under its name. */
import { definePlugin } from 'troupe/plugin';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { forward, Remote, type RemoteConfig } from '../lib/proxy/remote.ts';

export default definePlugin<RemoteConfig>({
  start({ config }) {
    const remote = new Remote(config);
    return { serve: { [DiffDefinition.fullName]: forward(DiffDefinition, remote, []) }, stop: () => remote.close() };
  },
});
