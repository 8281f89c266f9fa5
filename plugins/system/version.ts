/** containerd.services.version.v1.Version. */
import type { DaemonInfo, PluginContext, Service } from 'troupe/plugin';
import { StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import type { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';

/** The release of containerd whose API this is, with Transfer and Streaming, which clients use from this one on; and without them. */
const SPEAKS = '2.0.0';
const SPEAKS_WITHOUT_TRANSFER = '1.6.20';

/** A semver with build metadata: clients that compare versions see containerd's, people see ours too. */
export function versionText(daemon: Pick<DaemonInfo, 'version'>, transfers: boolean): string {
  return `${transfers ? SPEAKS : SPEAKS_WITHOUT_TRANSFER}+troupe.${daemon.version}`;
}

export function serveVersion({
  daemon,
  providers,
}: Pick<PluginContext, 'daemon' | 'providers'>): Service<typeof VersionDefinition> {
  return {
    version() {
      // The config may leave either out.
      const transfers = [TransferDefinition, StreamingDefinition].every((each) => providers(each).length > 0);
      return { version: versionText(daemon, transfers), revision: daemon.revision };
    },
  };
}
