/** A content store in another process, under its name. */
import { definePlugin } from 'troupe/plugin';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { forward, Remote, type RemoteConfig } from '../lib/proxy/remote.ts';

const short = ['Info', 'Update', 'Status', 'ListStatuses', 'Abort'];

export default definePlugin<RemoteConfig>({
  start({ config }) {
    const remote = new Remote(config);
    return {
      serve: { [ContentDefinition.fullName]: forward(ContentDefinition, remote, short) },
      stop: () => remote.close(),
    };
  },
});
