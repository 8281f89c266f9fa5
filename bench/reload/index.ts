/**
 * Reloads under load: a real daemon, 64 calls in flight from another process, streams that outlast several reloads, and 40 reloads a round of each of the
 * plugins that everything goes through. What counts is that no call fails and no stream breaks; then how long calls were held, and what it costs.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import {
  ContainersDefinition,
  CreateContainerRequest,
} from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from '../../proto/gen/containerd/services/content/v1/content.ts';
import { SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import { KernelDefinition } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { makeDisk } from '../disk.ts';
import { memoryOf, type Peer, startPeer } from '../peers.ts';
import { quantile } from '../raw-client.ts';
import type { Report, Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { press } from './press.ts';
import { type Blob, Streams } from './streams.ts';
import { blobData, containerId, inFlight, kept, namespace, type PressureKind } from './subjects.ts';

const reloadsPerRound = 40;
const pauseMs = 50;
const warmUp = 10;
const settleMs = 3000;

const slots: { readonly [kind in PressureKind]: string } = {
  content: 'io.containerd.content.v1.content',
  records: 'troupe.records.v1.records',
  snapshots: 'io.containerd.service.v1.snapshots-service',
  events: 'io.containerd.event.v1.exchange',
};

interface Figures {
  readonly kind: PressureKind;
  readonly holdMs: number[];
  readonly flipMs: number[];
  readonly rssBefore: number;
  readonly rssAfter: number;
  readonly calls: number;
  readonly failures: number;
  readonly callMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly trouble: readonly string[];
  readonly whole: { readonly [kind: string]: number };
}

export async function bench(rounds: number, { parts }: Pick<BenchOptions, 'parts'>): Promise<Report> {
  const disk = makeDisk(2048);
  const figures: Figures[] = [];
  try {
    for (const kind of Object.keys(slots) as PressureKind[]) {
      if (parts.length > 0 && !parts.includes(kind)) continue;
      const peer = await startPeer('troupe', disk.dir);
      try {
        figures.push(await one(peer, kind, rounds * reloadsPerRound));
      } finally {
        await peer.stop();
      }
    }
  } finally {
    disk.remove();
  }
  return report(figures, rounds * reloadsPerRound);
}

async function one(peer: Peer, kind: PressureKind, reloads: number): Promise<Figures> {
  const client = new GrpcClient(peer.address, { namespace, maxMessageSize: 64 << 20 });
  const kernel = typedClient(client, KernelDefinition);
  try {
    const blob = await fill(client);
    const streams = new Streams(client);
    await streams.begin(blob);
    const pressure = await press(peer.address, inFlight, kind);
    const holdMs: number[] = [];
    const flipMs: number[] = [];
    const trouble: string[] = [];
    const reload = async () => {
      const outcome = await kernel.reload({ id: slots[kind], force: true }, { timeoutMs: 120_000 });
      if (outcome.outcome !== 'reloaded') trouble.push(`reload: ${outcome.outcome}: ${outcome.reason}`);
      await sleep(pauseMs);
      return outcome;
    };
    for (let warm = 0; warm < warmUp; warm++) await reload();
    await sleep(settleMs);
    const rssBefore = memoryOf(peer.pid).rss / 1024;
    for (let each = 0; each < reloads; each++) {
      const outcome = await reload();
      holdMs.push(outcome.holdMs);
      flipMs.push(outcome.totalMs);
    }
    await sleep(settleMs);
    const rssAfter = memoryOf(peer.pid).rss / 1024;
    const result = await pressure.end();
    await streams.end(kind === 'events' ? result.lanes : []);
    if (kind === 'records') trouble.push(...(await lost(client, result.lanes)));
    const { broken, whole } = streams.verdicts;
    trouble.push(...result.failed, ...broken);
    const { calls, failures, p50, p99, max } = result;
    return { kind, holdMs, flipMs, rssBefore, rssAfter, calls, failures, callMs: { p50, p99, max }, trouble, whole };
  } finally {
    client.close();
  }
}

/** The last write of each lane is what is there. */
async function lost(client: GrpcClient, lanes: readonly number[]): Promise<string[]> {
  const containers = typedClient(client, ContainersDefinition);
  const said: string[] = [];
  for (const [lane, count] of lanes.entries()) {
    const { container } = await containers.get({ id: containerId(lane) });
    const n = container?.labels.n;
    if (n !== String(count - 1))
      said.push(`${containerId(lane)} has n=${n}, the last that was answered is ${count - 1}`);
  }
  return said;
}

async function fill(client: GrpcClient): Promise<Blob> {
  const containers = typedClient(client, ContainersDefinition);
  for (let lane = 0; lane < inFlight; lane++) {
    await containers.create(
      CreateContainerRequest.fromPartial({
        container: {
          id: containerId(lane),
          image: 'registry.test/image:1',
          runtime: { name: 'io.containerd.runc.v2' },
          spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec', value: Buffer.from('{}') },
        },
      }),
    );
  }
  await typedClient(client, SnapshotsDefinition).prepare({
    snapshotter: 'native',
    key: 'base',
    parent: '',
    labels: kept,
  });
  for (const [index, data] of blobData.entries()) await upload(client, `blob-${index}`, [data]);
  const large = Array.from({ length: 16 }, () => randomBytes(1 << 20));
  return { digest: await upload(client, 'large', large), size: 16 << 20 };
}

async function upload(client: GrpcClient, ref: string, parts: readonly Uint8Array[]): Promise<string> {
  const content = typedClient(client, ContentDefinition);
  async function* requests() {
    let offset = 0;
    for (const data of parts) {
      yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref, offset: BigInt(offset), data });
      offset += data.length;
    }
    yield WriteContentRequest.fromPartial({
      action: WriteAction.COMMIT,
      ref,
      offset: BigInt(offset),
      total: BigInt(offset),
      labels: kept,
    });
  }
  let digest = '';
  for await (const reply of content.write(requests())) digest = reply.digest;
  return digest;
}

function report(figures: readonly Figures[], reloads: number): Report {
  const row = (kind: string, what: string, unit: string, ours: readonly number[], target?: number): Row => ({
    what: `${kind}: ${what}`,
    unit,
    ours,
    peer: target === undefined ? [] : [target],
    more: false,
  });
  const rows = figures.flatMap(({ kind, holdMs, flipMs, failures, rssBefore, rssAfter, callMs }) => [
    row(kind, 'failed calls', '', [failures], 0),
    row(kind, 'hold p50', 'ms', [quantile(holdMs, 0.5)]),
    row(kind, 'hold p99', 'ms', [quantile(holdMs, 0.99)], 20),
    row(kind, 'hold longest', 'ms', [Math.max(...holdMs)]),
    row(kind, 'request to flip p50', 'ms', [quantile(flipMs, 0.5)], 100),
    row(kind, 'request to flip p99', 'ms', [quantile(flipMs, 0.99)]),
    row(kind, 'calls meanwhile, p50', 'ms', [callMs.p50]),
    row(kind, 'calls meanwhile, p99', 'ms', [callMs.p99]),
    row(kind, 'calls meanwhile, longest', 'ms', [callMs.max]),
    row(kind, 'resident before', 'MB', [rssBefore]),
    row(kind, 'resident after', 'MB', [rssAfter], rssBefore * 1.1),
    row(kind, 'memory a reload', 'kB', [((rssAfter - rssBefore) * 1024) / reloads]),
  ]);
  const notes = figures.flatMap(({ kind, calls, failures, whole, trouble }) => [
    `${kind}: ${reloads} reloads, ${calls} calls at ${inFlight} in flight, ${failures} failed; streams that ended whole: ${
      Object.entries(whole)
        .map(([what, count]) => `${count} × ${what}`)
        .join(', ') || 'none'
    }`,
    ...trouble.slice(0, 10).map((text) => `${kind}: ${text}`),
  ]);
  const title = `Reloads under load, ${reloads} of each plugin at ${inFlight} calls in flight`;
  const bars = figures.flatMap(({ kind, holdMs, flipMs }) => [
    { label: `${kind}: calls held, p50`, series: 'p50', value: quantile(holdMs, 0.5) },
    { label: `${kind}: calls held, p99`, series: 'p99', value: quantile(holdMs, 0.99) },
    { label: `${kind}: request to flip, p50`, series: 'p50', value: quantile(flipMs, 0.5) },
    { label: `${kind}: request to flip, p99`, series: 'p99', value: quantile(flipMs, 0.99) },
  ]);
  return { title, peer: 'target', rows, notes, charts: [{ name: 'reload', title, unit: 'ms', bars }] };
}
