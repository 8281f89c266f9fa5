/** containerd.services.version.v1.Version. */
import type { DaemonInfo, Service } from 'troupe/plugin';
import type { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';

/** The release of containerd whose API this is. From 2.0.0 on clients expect Transfer and Streaming. */
const SPEAKS = '1.6.20';

/** A semver with build metadata: clients that compare versions see containerd's, people see ours too. */
export function versionText(daemon: Pick<DaemonInfo, 'version'>): string {
  return `${SPEAKS}+troupe.${daemon.version}`;
}

export function serveVersion(daemon: DaemonInfo): Service<typeof VersionDefinition> {
  return { version: () => ({ version: versionText(daemon), revision: daemon.revision }) };
}
