/** What the daemon says about itself: its version, its plugins, who it is, and whether it serves. */
import { definePlugin } from 'troupe/plugin';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';
import { HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
import { Health, serveHealth } from './health.ts';
import { serveIntrospection } from './introspection.ts';
import { ServerId } from './server-id.ts';
import { serveVersion } from './version.ts';

export default definePlugin<{ readonly path: string }>({
  start(ctx) {
    const serverId = new ServerId(ctx.rootOf('io.containerd.grpc.v1.introspection'));
    return {
      serve: {
        [VersionDefinition.fullName]: serveVersion(ctx),
        [IntrospectionDefinition.fullName]: serveIntrospection({ ctx, serverId, optPath: ctx.config.path }),
        [HealthDefinition.fullName]: serveHealth(new Health(ctx)),
      },
    };
  },
});
