/**
 * A client that keeps a number of calls open on one connection until its standard input ends, and says how they went. Raw HTTP/2, in a process of its own, as
 * load.ts; but no two calls are the same, since those are what a reload could lose or do twice.
 *
 *   pressure.ts ADDRESS IN_FLIGHT KIND
 *
 * Prints `ready` when all lanes have been answered once, and JSON at the end: calls, failures, p50, p99 and the longest in ms, and what each lane published.
 */
import {
  ContainersDefinition,
  UpdateContainerRequest,
} from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import {
  ContentDefinition,
  InfoRequest,
  ListStatusesRequest,
} from '../../proto/gen/containerd/services/content/v1/content.ts';
import { EventsDefinition, PublishRequest } from '../../proto/gen/containerd/services/events/v1/events.ts';
import {
  MountsRequest,
  PrepareSnapshotRequest,
  RemoveSnapshotRequest,
  SnapshotsDefinition,
  StatSnapshotRequest,
} from '../../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import { quantile, RawClient } from '../raw-client.ts';
import { blobDigest, containerId, kept, namespace, numbers, type Pressure, type PressureKind } from './subjects.ts';

interface Next {
  readonly method: string;
  readonly request: Uint8Array;
}

/** The n-th call of a lane. */
const calls: { readonly [kind in PressureKind]: (lane: number, n: number) => Next } = {
  content: (lane, n) =>
    n % 4 === 3
      ? {
          method: `${ContentDefinition.fullName}/ListStatuses`,
          request: ListStatusesRequest.encode({ filters: [] }).finish(),
        }
      : {
          method: `${ContentDefinition.fullName}/Info`,
          request: InfoRequest.encode({ digest: blobDigest(lane + n) }).finish(),
        },
  records: (lane, n) => ({
    method: `${ContainersDefinition.fullName}/Update`,
    request: UpdateContainerRequest.encode(
      UpdateContainerRequest.fromPartial({
        container: { id: containerId(lane), labels: { n: String(n) } },
        updateMask: ['labels.n'],
      }),
    ).finish(),
  }),
  // Each fourth lane writes: it prepares a snapshot, and removes it again.
  snapshots: (lane, n) => {
    const which = { snapshotter: 'native', key: lane % 4 === 0 ? `lane-${lane}-${n >> 1}` : 'base' };
    if (lane % 4 === 0) {
      return n % 2 === 0
        ? {
            method: `${SnapshotsDefinition.fullName}/Prepare`,
            request: PrepareSnapshotRequest.encode({ ...which, parent: '', labels: kept }).finish(),
          }
        : { method: `${SnapshotsDefinition.fullName}/Remove`, request: RemoveSnapshotRequest.encode(which).finish() };
    }
    return n % 2 === 0
      ? { method: `${SnapshotsDefinition.fullName}/Stat`, request: StatSnapshotRequest.encode(which).finish() }
      : { method: `${SnapshotsDefinition.fullName}/Mounts`, request: MountsRequest.encode(which).finish() };
  },
  events: (lane, n) => ({
    method: `${EventsDefinition.fullName}/Publish`,
    request: PublishRequest.encode({
      topic: numbers,
      event: { typeUrl: 'bench.Number', value: Buffer.from(`${lane} ${n}`) },
    }).finish(),
  }),
};

const [address, inFlightText, kind] = process.argv.slice(2) as [string, string, PressureKind];
const inFlight = Number(inFlightText);
const client = await RawClient.connect(address);

let ended = false;
process.stdin
  .on('data', () => {})
  .on('end', () => {
    ended = true;
  });

const times: number[] = [];
const failures = new Map<string, number>();
const done = new Array<number>(inFlight).fill(0);

async function one({ method, request }: Next): Promise<void> {
  const { status, said, ms } = await client.call({ method, namespace, request });
  times.push(ms);
  if (status === '0') return;
  const text = `${method}: ${status} ${said}`;
  failures.set(text, (failures.get(text) ?? 0) + 1);
}

let waiting = inFlight;
async function lane(index: number): Promise<void> {
  // A lane ends when it has undone what it began.
  while (!ended || (kind === 'snapshots' && done[index]! % 2 === 1)) {
    await one(calls[kind](index, done[index]!));
    done[index]! += 1;
    if (done[index] === 1 && --waiting === 0) console.log('ready');
  }
}

await Promise.all(Array.from({ length: inFlight }, (_, index) => lane(index)));
client.close();
const result: Pressure = {
  calls: times.length,
  failures: [...failures.values()].reduce((sum, count) => sum + count, 0),
  failed: [...failures].map(([text, count]) => `${count} × ${text}`),
  p50: quantile(times, 0.5),
  p99: quantile(times, 0.99),
  max: quantile(times, 1),
  lanes: done,
};
console.log(JSON.stringify(result));
