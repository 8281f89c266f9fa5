/** Unary calls from a client outside the process: what the path socket → front → bus → plugin → back costs, and where its CPU goes. */
import {
  ContainersDefinition,
  CreateContainerRequest,
  GetContainerRequest,
} from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import { CreateImageRequest, ImagesDefinition } from '../../proto/gen/containerd/services/images/v1/images.ts';
import { VersionDefinition } from '../../proto/gen/containerd/services/version/v1/version.ts';
import { KernelDefinition } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { load } from '../loader.ts';
import { makeDisk } from '../disk.ts';
import { containerdInstalled, cpuOf, type Peer, startPeer } from '../peers.ts';
import type { Report } from '../report.ts';

const seconds = 2;
const inFlights = [1, 8, 64];
const calls = [
  { what: 'Version', method: `${VersionDefinition.fullName}/Version`, request: '' },
  {
    what: 'Containers.Get',
    method: `${ContainersDefinition.fullName}/Get`,
    request: Buffer.from(GetContainerRequest.encode({ id: 'one' }).finish()).toString('hex'),
  },
  { what: 'Images.List of 100', method: `${ImagesDefinition.fullName}/List`, request: '' },
];

export async function bench(rounds: number): Promise<Report> {
  const disk = makeDisk(512);
  const rates = new Map<string, { troupe: number[]; containerd: number[] }>();
  const cpu = new Map<string, { troupe: number[]; containerd: number[] }>();
  const p99 = new Map<string, { troupe: number[]; containerd: number[] }>();
  const names: Peer['name'][] = containerdInstalled() ? ['troupe', 'containerd'] : ['troupe'];
  let where: string[] = [];
  try {
    for (let round = 0; round < rounds; round++) {
      for (const name of names) {
        const peer = await startPeer(name, disk.dir);
        try {
          await fill(peer);
          for (const { what, method, request } of calls) {
            for (const inFlight of inFlights) {
              const key = `${what}, ${inFlight} in flight`;
              const before = cpuOf(peer.pid);
              const threads = name === 'troupe' ? await threadCpu(peer) : undefined;
              const result = await load(peer.address, inFlight, seconds, method, request);
              push(rates, key, name, result.calls / result.seconds);
              push(cpu, key, name, ((cpuOf(peer.pid) - before) * 1e6) / result.calls);
              push(p99, key, name, result.p99);
              if (threads !== undefined && round === rounds - 1) {
                const after = await threadCpu(peer);
                where.push(
                  `${key}: ${[...after]
                    .map(([id, ms]) => [id, ((ms - (threads.get(id) ?? 0)) * 1000) / result.calls] as const)
                    .filter(([, us]) => us > 0.5)
                    .sort((a, b) => b[1] - a[1])
                    .map(([id, us]) => `${id} ${us.toFixed(1)} µs`)
                    .join(', ')}`,
                );
              }
            }
          }
        } finally {
          await peer.stop();
        }
      }
    }
  } finally {
    disk.remove();
  }
  where = where.map((line) => `CPU by thread, ${line}`);
  const rows = (figures: typeof rates, unit: string, more: boolean, suffix: string) =>
    [...figures].map(([what, { troupe, containerd }]) => ({
      what: `${what}${suffix}`,
      unit,
      ours: troupe,
      peer: containerd,
      more,
    }));
  return {
    title: 'Unary calls, client in another process',
    peer: 'containerd',
    rows: [
      ...rows(rates, '/s', true, ''),
      ...rows(cpu, 'µs', false, ': server CPU a call'),
      ...rows(p99, 'ms', false, ': p99'),
    ],
    notes: where,
  };
}

function push(
  figures: Map<string, { troupe: number[]; containerd: number[] }>,
  key: string,
  name: Peer['name'],
  value: number,
): void {
  const each = figures.get(key) ?? { troupe: [], containerd: [] };
  each[name].push(value);
  figures.set(key, each);
}

async function fill(peer: Peer): Promise<void> {
  const client = new GrpcClient(peer.address, { namespace: 'bench' });
  try {
    await typedClient(client, ContainersDefinition).create(
      CreateContainerRequest.fromPartial({
        container: {
          id: 'one',
          image: 'registry.test/image:1',
          runtime: { name: 'io.containerd.runc.v2' },
          spec: {
            typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
            value: new TextEncoder().encode('{"ociVersion":"1.0.2"}'),
          },
        },
      }),
    );
    const images = typedClient(client, ImagesDefinition);
    for (let index = 0; index < 100; index++) {
      await images.create(
        CreateImageRequest.fromPartial({
          image: {
            name: `registry.test/image:${index}`,
            target: {
              mediaType: 'application/vnd.oci.image.manifest.v1+json',
              digest: `sha256:${'ab'.repeat(32)}`,
              size: 1234,
            },
          },
        }),
      );
    }
  } finally {
    client.close();
  }
}

/** Milliseconds of CPU by plugin so far, the front among them. */
async function threadCpu(peer: Peer): Promise<Map<string, number>> {
  const client = new GrpcClient(peer.address);
  try {
    const { plugins } = await typedClient(client, KernelDefinition).list({ ids: [] });
    return new Map(plugins.map(({ id, cpuMs }) => [id, cpuMs]));
  } finally {
    client.close();
  }
}
