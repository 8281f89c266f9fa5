/** What the daemon costs before anybody uses it: time to the first served Health check, and resident memory after ten idle seconds. */
import { makeDisk } from '../disk.ts';
import { containerdInstalled, cpuOf, memoryOf, type PeerOptions, startPeer } from '../peers.ts';
import type { Report } from '../report.ts';

const idleMs = 10_000;

interface Figures {
  readonly bootMs: number[];
  readonly rssMb: number[];
  readonly pssMb: number[];
  readonly cpuMsPerSecond: number[];
}

export async function bench(rounds: number): Promise<Report> {
  const disk = makeDisk(512);
  const kinds: { key: string; name: 'troupe' | 'containerd'; options: PeerOptions }[] = [
    { key: 'threads', name: 'troupe', options: {} },
    { key: 'lean', name: 'troupe', options: { config: '[kernel]\nthreads = "lean"\n' } },
    ...(containerdInstalled() ? [{ key: 'containerd', name: 'containerd' as const, options: {} }] : []),
  ];
  const figures = new Map<string, Figures>(
    kinds.map(({ key }) => [key, { bootMs: [], rssMb: [], pssMb: [], cpuMsPerSecond: [] }]),
  );
  try {
    for (let round = 0; round < rounds; round++) {
      for (const { key, name, options } of kinds) {
        const peer = await startPeer(name, disk.dir, options);
        try {
          const figure = figures.get(key)!;
          figure.bootMs.push(peer.bootMs);
          const before = cpuOf(peer.pid);
          await new Promise((resolve) => setTimeout(resolve, idleMs));
          const { rss, pss } = memoryOf(peer.pid);
          figure.rssMb.push(rss / 1024);
          figure.pssMb.push(pss / 1024);
          figure.cpuMsPerSecond.push(((cpuOf(peer.pid) - before) * 1000) / (idleMs / 1000));
        } finally {
          await peer.stop();
        }
      }
    }
  } finally {
    disk.remove();
  }
  const of = (key: string, pick: (figure: Figures) => number[]) => {
    const figure = figures.get(key);
    return figure === undefined ? [] : pick(figure);
  };
  const row = (what: string, key: string, unit: string, pick: (figure: Figures) => number[]) => ({
    what,
    unit,
    ours: of(key, pick),
    peer: of('containerd', pick),
    more: false,
  });
  return {
    title: 'Footprint',
    peer: 'containerd',
    rows: [
      row('exec to a served Health check, a thread each', 'threads', 'ms', (figure) => figure.bootMs),
      row('exec to a served Health check, lean', 'lean', 'ms', (figure) => figure.bootMs),
      row('resident after 10 s idle, a thread each', 'threads', 'MB', (figure) => figure.rssMb),
      row('resident after 10 s idle, lean', 'lean', 'MB', (figure) => figure.rssMb),
      row('proportional set, a thread each', 'threads', 'MB', (figure) => figure.pssMb),
      row('idle CPU, a thread each', 'threads', 'ms/s', (figure) => figure.cpuMsPerSecond),
    ],
    notes: ['the first round fills the compile cache where it is empty', 'containerd runs without its CRI plugin'],
  };
}
