/** The suites of content, images and containers through the daemon's socket: front, bus, threads and all. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestFn } from 'ava';
import type { ServiceDefinition } from 'troupe/plugin';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { Daemon } from '../helpers/daemon.ts';
import { scratchBase } from '../helpers/scratch.ts';
import { containersSuite } from '../suites/containers.ts';
import { contentSuite } from '../suites/content.ts';
import { imagesSuite } from '../suites/images.ts';
import type { SeenEvent, Subject } from '../suites/subject.ts';

// What the suites store has no lease, so it may be collected when they ask for that and at no other time.
const config = `version = 3
[plugins."troupe.records.v1.records"]
mutation_threshold = 0
startup_delay = "24h"
`;

const dir = mkdtempSync(join(scratchBase(), 'troupe-suites-'));
const daemon = new Daemon(dir, { config });
let client: GrpcClient;
const seen: SeenEvent[] = [];
let wake = Promise.withResolvers<void>();
const listening = new AbortController();

test.before(async () => {
  await daemon.start();
  client = new GrpcClient(daemon.address);
  listen().catch(() => {});
});
test.after.always(async () => {
  listening.abort();
  client?.close();
  await daemon.stop();
  rmSync(dir, { recursive: true, force: true });
});

async function listen(): Promise<void> {
  const stream = typedClient(client, EventsDefinition).subscribe({ filters: [] }, { signal: listening.signal });
  for await (const { namespace, topic, event } of stream) {
    seen.push({ namespace, topic, typeUrl: event!.typeUrl, value: event!.value });
    wake.resolve();
    wake = Promise.withResolvers();
  }
}

function subject<D extends ServiceDefinition>(definition: D): Subject & { client: ReturnType<typeof typedClient<D>> } {
  const namespace = `s${randomBytes(6).toString('hex')}`;
  const leases = typedClient(client, LeasesDefinition);
  let position = seen.length;
  return {
    client: typedClient(client, definition),
    namespace,
    otherNamespace: `${namespace}-other`,
    async createLease(ns, id) {
      await leases.create({ id, labels: {} }, { namespace: ns });
    },
    async leaseResources(ns, id) {
      const { resources } = await leases.listResources({ id }, { namespace: ns });
      return resources.map(({ type, id }) => ({ type, id }));
    },
    async events(ns, count) {
      for (;;) {
        const found = seen.slice(position).filter((event) => event.namespace === ns);
        if (found.length >= count) {
          position = seen.length;
          return found;
        }
        await wake.promise;
      }
    },
    async collect() {
      await leases.create({ id: 'collect', labels: {} }, { namespace });
      await leases.delete({ id: 'collect', sync: true }, { namespace });
    },
  };
}

// Collection is the whole daemon's: one at a time.
const serially = test.serial as unknown as TestFn;
imagesSuite(serially, 'socket, images', () => subject(ImagesDefinition));
containersSuite(serially, 'socket, containers', () => subject(ContainersDefinition));
contentSuite(serially, 'socket, content', () => subject(ContentDefinition));
