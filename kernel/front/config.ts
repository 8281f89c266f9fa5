/** What the front is told of the daemon's config. */
import type { Config } from '../config/index.ts';
import type { FrontConfig } from './index.ts';

export function frontConfig(config: Config): FrontConfig {
  const { address, uid, gid, maxRecvMessageSize, maxSendMessageSize } = config.grpc;
  return { grpc: { address, uid, gid, maxRecvMessageSize, maxSendMessageSize } };
}
