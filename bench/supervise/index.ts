/** From a crash, a hang and a full heap of one plugin to its serving again; what callers of it lose, and what everybody else notices meanwhile. */
import { join } from 'node:path';
import { GrpcClient } from '../../kernel/front/client.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import { VersionDefinition } from '../../proto/gen/containerd/services/version/v1/version.ts';
import { makeDisk } from '../disk.ts';
import { memoryOf, type Peer, startPeer } from '../peers.ts';
import { quantile, RawClient } from '../raw-client.ts';
import type { Report, Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { type Deed, deeds, victimContract, writeVictim } from './victim.ts';

const perRound = 4;
const killMs = 2000;
const others = 8;
const quietMs = 3000;

interface Figures {
  readonly againMs: number[];
  readonly toldMs: number[];
  readonly p99: number[];
  readonly lost: number[];
  failed: number;
  rssMb: number;
}

export async function bench(rounds: number, { parts }: Pick<BenchOptions, 'parts'>): Promise<Report> {
  const disk = makeDisk(256);
  const proto = writeVictim(join(disk.dir, 'plugins', 'victim'));
  const definition = definitionFromFile(victimContract, proto);
  const figures = new Map<Deed, Figures>();
  const quiet: number[] = [];
  const pids = new Set<number>();
  let told = Promise.withResolvers<number>();
  try {
    const peer = await startPeer('troupe', disk.dir, {
      config: `[kernel]\nplugin_dirs = ["${join(disk.dir, 'plugins')}"]\nunresponsive = "1s"\nkill = "${killMs}ms"\n`,
      onLog: (line) => line.includes('worker is unresponsive') && told.resolve(performance.now()),
    });
    const client = new GrpcClient(peer.address);
    const ask = async (what: string): Promise<void> => {
      const request = definition.methods.do!.requestType;
      await client.unary(`${victimContract}/Do`, request.encode(request.fromPartial({ what } as never)).finish(), {
        timeoutMs: 60_000,
      });
    };
    try {
      await ask('nothing');
      for (let round = 0; round < rounds; round++) {
        quiet.push((await meanwhile(peer, () => new Promise((resolve) => setTimeout(resolve, quietMs)))).p99);
        for (const deed of deeds) {
          if (parts.length > 0 && !parts.includes(deed)) continue;
          const figure = figures.get(deed) ?? { againMs: [], toldMs: [], p99: [], lost: [], failed: 0, rssMb: 0 };
          figures.set(deed, figure);
          const noticed = await meanwhile(peer, async () => {
            for (let each = 0; each < perRound; each++) {
              told = Promise.withResolvers();
              const began = performance.now();
              const done = ask(deed).then(
                () => 0,
                () => 1,
              );
              // It comes second, and is served by the next generation: by nobody but it.
              await new Promise((resolve) => setImmediate(resolve));
              await ask('nothing').catch(() => ask('nothing'));
              await done;
              await ask('nothing');
              figure.againMs.push(performance.now() - began);
              figure.lost.push(await done);
              if (deed === 'hang') figure.toldMs.push((await told.promise) - began);
              figure.rssMb = Math.max(figure.rssMb, memoryOf(peer.pid).rss / 1024);
              pids.add(peer.pid);
            }
          });
          figure.p99.push(noticed.p99);
          figure.failed += noticed.failed;
        }
      }
    } finally {
      client.close();
      await peer.stop();
    }
  } finally {
    disk.remove();
  }
  return report(figures, quiet);
}

/** Calls of another plugin while something happens. */
async function meanwhile(peer: Peer, work: () => Promise<unknown>): Promise<{ p99: number; failed: number }> {
  const client = await RawClient.connect(peer.address);
  const times: number[] = [];
  let failed = 0;
  let over = false;
  const lane = async () => {
    while (!over) {
      const { status, ms } = await client.call({
        method: `${VersionDefinition.fullName}/Version`,
        namespace: 'bench',
        request: new Uint8Array(),
      });
      times.push(ms);
      if (status !== '0') failed += 1;
    }
  };
  const lanes = Promise.all(Array.from({ length: others }, lane));
  try {
    await work();
  } finally {
    over = true;
    await lanes;
    client.close();
  }
  return { p99: quantile(times, 0.99), failed };
}

function report(figures: ReadonlyMap<Deed, Figures>, quiet: readonly number[]): Report {
  const row = (what: string, unit: string, ours: readonly number[], target?: number): Row => ({
    what,
    unit,
    ours,
    peer: target === undefined ? [] : [target],
    more: false,
  });
  const rows = [...figures].flatMap(([deed, { againMs, toldMs, p99, failed, rssMb }]) => [
    row(`${deed}: to serving again`, 'ms', againMs, deed === 'hang' ? killMs + 1000 : undefined),
    ...(toldMs.length > 0 ? [row(`${deed}: to being told of`, 'ms', toldMs, 1500)] : []),
    row(`${deed}: calls of others, p99`, 'ms', p99, 2 * quantile(quiet, 0.5)),
    row(`${deed}: calls of others that failed`, '', [failed], 0),
    row(`${deed}: resident, most`, 'MB', [rssMb]),
  ]);
  const title = 'A plugin that dies, hangs or takes all memory';
  const bars = [...figures].map(([deed, { againMs }]) => ({
    label: `${deed}: to serving again`,
    series: 'median',
    value: quantile(againMs, 0.5),
  }));
  return {
    title,
    peer: 'target',
    rows: [row('quiet: calls of others, p99', 'ms', quiet), ...rows],
    notes: [
      `a hang is ended after ${killMs / 1000} s (kernel.kill); the clock runs from the call that does it to the first answer of the next generation`,
      'calls of others: Version at 8 in flight, in the process that measures',
    ],
    charts: [{ name: 'supervise', title, unit: 'ms', bars }],
  };
}
