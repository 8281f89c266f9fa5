/**
 * Calls that `ctr` makes, once more and many times, against one plugin after the other: what a change to a plugin has made of it. The trace is recorded in this run, of
 * this `ctr` through the front; with a baseline (a `--json` of before) the ratios are to that, and CPU time a call is what to look at on a machine that is not quiet.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { KernelDefinition } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { makeDisk } from '../disk.ts';
import { startPeer } from '../peers.ts';
import { quantile, type RawCall, RawClient } from '../raw-client.ts';
import type { Report, Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { Recorder } from './recorder.ts';

const inFlight = 8;
const long = { warmMs: 500, roundMs: 2000, diskMb: 512 };
const short = { warmMs: 50, roundMs: 200, diskMb: 192 };

/** What a user does in an afternoon, without a container: that is measured elsewhere. */
const commands = [
  'version',
  'namespaces create bench',
  'namespaces ls',
  'namespaces label bench a=b',
  'images ls',
  'images check',
  'containers ls',
  'content ls',
  'content active',
  'leases create --id lease',
  'leases ls',
  'snapshots ls',
  'snapshots prepare one',
  'snapshots mounts /none one',
  'snapshots info one',
  'snapshots usage one',
  'snapshots tree',
  'tasks ls',
  'plugins ls',
];

interface Figures {
  readonly rate: number[];
  readonly cpuUs: number[];
  readonly p50: number[];
  readonly p99: number[];
  /** Of the trace. */
  readonly calls: number;
}

export async function bench(
  rounds: number,
  { parts, baseline, quick }: Pick<BenchOptions, 'parts' | 'baseline' | 'quick'>,
): Promise<Report> {
  const { warmMs, roundMs, diskMb } = quick ? short : long;
  const disk = makeDisk(diskMb);
  const figures = new Map<string, Figures>();
  let recorded = 0;
  try {
    const peer = await startPeer('troupe', disk.dir);
    const client = new GrpcClient(peer.address);
    const kernel = typedClient(client, KernelDefinition);
    try {
      const trace = await record(peer.address, join(disk.dir, 'recorder.sock'));
      recorded = trace.length;
      const { plugins } = await kernel.list({ ids: [] });
      const subjects = plugins.flatMap(({ id, contracts }) => {
        const calls = trace.filter(({ method }) => contracts.includes(method.slice(0, method.indexOf('/'))));
        return calls.length > 0 && (parts.length === 0 || parts.includes(id)) ? [{ id, calls }] : [];
      });
      const cpuOf = async (id: string) => (await kernel.list({ ids: [id] })).plugins[0]!.cpuMs;
      for (let round = 0; round < rounds; round++) {
        for (const { id, calls } of subjects) {
          const figure = figures.get(id) ?? { rate: [], cpuUs: [], p50: [], p99: [], calls: calls.length };
          figures.set(id, figure);
          await replay(peer.address, calls, warmMs);
          const before = await cpuOf(id);
          const { times, seconds } = await replay(peer.address, calls, roundMs);
          figure.cpuUs.push(((await cpuOf(id)) - before) * (1000 / times.length));
          figure.rate.push(times.length / seconds);
          figure.p50.push(quantile(times, 0.5));
          figure.p99.push(quantile(times, 0.99));
        }
      }
    } finally {
      client.close();
      await peer.stop();
    }
  } finally {
    disk.remove();
  }
  return report(figures, recorded, baseline);
}

/** Unary calls that succeeded, in the order in which they were answered. */
async function record(upstream: string, address: string): Promise<readonly RawCall[]> {
  const recorder = new Recorder(upstream);
  await recorder.listen(address);
  try {
    for (const command of commands) {
      const args = ['--address', address, '--namespace', 'bench', ...command.split(' ')];
      // What fails is left out of the trace.
      await promisify(execFile)('ctr', args, { env: { ...process.env, CONTAINERD_SNAPSHOTTER: 'native' } }).catch(
        () => undefined,
      );
    }
  } finally {
    recorder.close();
  }
  return recorder.calls;
}

/** Over and over until the time is up. What has been done once may be refused the next time: it is answered all the same. */
async function replay(
  address: string,
  calls: readonly RawCall[],
  ms: number,
): Promise<{ times: number[]; seconds: number }> {
  const client = await RawClient.connect(address);
  const times: number[] = [];
  const began = performance.now();
  let next = 0;
  const lane = async () => {
    while (performance.now() - began < ms) times.push((await client.call(calls[next++ % calls.length]!)).ms);
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  client.close();
  return { times, seconds: (performance.now() - began) / 1000 };
}

function report(figures: ReadonlyMap<string, Figures>, recorded: number, baseline: string | undefined): Report {
  const before = new Map<string, readonly number[]>();
  if (baseline !== undefined) {
    const { rows } = JSON.parse(readFileSync(baseline, 'utf8')) as { rows: readonly Row[] };
    for (const { what, ours } of rows) before.set(what, ours);
  }
  const row = (what: string, unit: string, ours: readonly number[], more: boolean): Row => ({
    what,
    unit,
    ours,
    peer: before.get(what) ?? [],
    more,
  });
  const title = `Recorded calls of ctr against one plugin at ${inFlight} in flight`;
  return {
    title,
    peer: 'baseline',
    rows: [...figures].flatMap(([id, { rate, cpuUs, p50, p99 }]) => [
      row(`${id}: calls`, '/s', rate, true),
      row(`${id}: CPU of its thread a call`, 'µs', cpuUs, false),
      row(`${id}: p50`, 'ms', p50, false),
      row(`${id}: p99`, 'ms', p99, false),
    ]),
    notes: [
      `${recorded} unary calls recorded; of the plugin: ${[...figures].map(([id, { calls }]) => `${id} ${calls}`).join(', ')}`,
    ],
    charts: [
      {
        name: 'plugins',
        title,
        unit: 'µs',
        bars: [...figures].map(([id, { cpuUs }]) => ({
          label: id,
          series: 'CPU of its thread a call, median',
          value: quantile(cpuUs, 0.5),
        })),
      },
    ],
  };
}
