/** How long small calls take while the pool's threads have all there is to do: two layers of a GiB are unpacked at once. */
import { setTimeout as sleep } from 'node:timers/promises';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import {
  ContainersDefinition,
  CreateContainerRequest,
  GetContainerRequest,
} from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import { DiffDefinition } from '../../proto/gen/containerd/services/diff/v1/diff.ts';
import { SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import type { BenchImage } from '../images.ts';
import { quantile, RawClient } from '../raw-client.ts';
import { importByCtr, namespace, withFreshPeer } from './work.ts';

const snapshotter = 'overlayfs';
const container = 'bench';
const calls = [
  { what: 'Version', method: 'containerd.services.version.v1.Version/Version', request: Buffer.alloc(0) },
  {
    what: 'Containers.Get',
    method: 'containerd.services.containers.v1.Containers/Get',
    request: Buffer.from(GetContainerRequest.encode({ id: container }).finish()),
  },
] as const;
/** Between two calls: they are to be few, so that they measure and do not load. */
const pauseMs = 3;
const idleMs = 5000;

export interface Beside {
  readonly what: string;
  /** p99, ms. */
  readonly idle: number;
  readonly busy: number;
}

export async function besideUnpacks(image: BenchImage, megabytes: number): Promise<Beside[]> {
  return withFreshPeer('troupe', megabytes, {}, async (peer) => {
    await importByCtr(peer, image.packed.gzip.archive, false);
    const client = new GrpcClient(peer.address, { namespace });
    const raw = await RawClient.connect(peer.address);
    try {
      await typedClient(client, ContainersDefinition).create(
        CreateContainerRequest.fromPartial({
          container: {
            id: container,
            runtime: { name: 'io.containerd.runc.v2' },
            spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec', value: Buffer.from('{}') },
          },
        }),
      );
      const idle = await timesUntil(raw, sleep(idleMs));
      const busy = await timesUntil(raw, Promise.all([unpack(client, image, 'a'), unpack(client, image, 'b')]));
      return calls.map(({ what }, at) => ({ what, idle: quantile(idle[at]!, 0.99), busy: quantile(busy[at]!, 0.99) }));
    } finally {
      raw.close();
      client.close();
    }
  });
}

/** Milliseconds of each call, by call. */
async function timesUntil(client: RawClient, done: Promise<unknown>): Promise<number[][]> {
  const times: number[][] = calls.map(() => []);
  let over = false;
  const end = done.finally(() => {
    over = true;
  });
  while (!over) {
    for (const [at, { method, request }] of calls.entries()) {
      const { ms, status, said } = await client.call({ method, namespace, request });
      if (status !== '0') throw new Error(`${method}: ${status} ${said}`);
      times[at]!.push(ms);
    }
    await sleep(pauseMs);
  }
  await end;
  return times;
}

async function unpack(client: GrpcClient, image: BenchImage, key: string): Promise<void> {
  const [layer] = image.layers;
  const { mounts } = await typedClient(client, SnapshotsDefinition).prepare({
    snapshotter,
    key,
    parent: '',
    // A collection that comes by, of what the import left, would take it otherwise.
    labels: { 'containerd.io/gc.root': new Date().toISOString() },
  });
  const { descriptor } = layer!.packed.gzip;
  await typedClient(client, DiffDefinition).apply({
    diff: { ...descriptor, size: BigInt(descriptor.size), annotations: {} },
    mounts,
    payloads: {},
    syncFs: false,
  });
}
