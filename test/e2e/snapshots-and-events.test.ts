/** The suites of snapshots and events through the daemon's socket: front, bus, threads and all. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { CallOptions } from 'troupe/plugin';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { HealthCheckResponse_ServingStatus as Status, HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { Daemon } from '../helpers/daemon.ts';
import type { PartialClient } from '../helpers/in-process.ts';
import { scratchBase } from '../helpers/scratch.ts';
import { eventsSuite } from '../suites/events.ts';
import { snapshotsSuite } from '../suites/snapshots.ts';

const dir = mkdtempSync(join(scratchBase(), 'troupe-suites-'));
const daemon = new Daemon(dir, {});
let client: GrpcClient;

test.before(async () => {
  await daemon.start();
  client = new GrpcClient(daemon.address);
});
test.after.always(async () => {
  client?.close();
  await daemon.stop();
  rmSync(dir, { recursive: true, force: true });
});

for (const snapshotter of ['overlayfs', 'native']) {
  snapshotsSuite(
    `socket, ${snapshotter}`,
    async () => {
      const snapshots = typedClient(client, SnapshotsDefinition) as unknown as PartialClient<
        typeof SnapshotsDefinition
      >;
      const namespace = `s${randomBytes(6).toString('hex')}`;
      return { snapshots: within(snapshots, namespace), snapshotter, scratch: dir };
    },
    process.geteuid!() === 0 ? undefined : 'root, to mount',
  );
}

eventsSuite('socket', async () => ({
  events: typedClient(client, EventsDefinition) as unknown as PartialClient<typeof EventsDefinition>,
}));

test('socket: the daemon says that it serves', async (t) => {
  const { status } = await typedClient(client, HealthDefinition).check({ service: '' });
  t.is(status, Status.SERVING, daemon.log.slice(-20).join('\n'));
});

/** The client with a namespace for the calls that name none. */
function within<C extends object>(all: C, namespace: string): C {
  const methods = Object.entries(all as Record<string, (request: unknown, options?: CallOptions) => unknown>);
  return Object.fromEntries(
    methods.map(([name, call]) => [
      name,
      (request: unknown, options?: CallOptions) => call(request, { namespace, ...options }),
    ]),
  ) as C;
}
