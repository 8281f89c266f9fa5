/**
 * Images onto a disk, ready to run: each image in gzip and zstd, each time into a fresh daemon on a fresh ext4, ours and containerd in turns.
 *
 *   import        `ctr images import`, which has the daemon unpack one layer after the other
 *   store only    the same without unpacking
 *   unpack        the content is there: Prepare, Apply, Commit by our own client, layers at once where the daemon can
 *   one thread    the same with one pool thread, and with node:zlib in place of ISA-L: ours beside ours
 *   beside        p99 of small calls while two layers of a GiB are unpacked, against that of an idle daemon
 */
import { loadavg } from 'node:os';
import type { Chart } from '../chart.ts';
import {
  type BenchImage,
  benchImage,
  imagesDir,
  type ImageName,
  imageNames,
  type Packing,
  packings,
} from '../images.ts';
import { containerdInstalled, type Peer, type PeerOptions } from '../peers.ts';
import { median, type Report, type Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { besideUnpacks } from './beside.ts';
import { type Limit, measureLimits } from './limits.ts';
import { importByCtr, type Timed, timed, unpackByClient, withFreshPeer } from './work.ts';

const walking = '[plugins."io.containerd.differ.v1.walking"]';
const variants: readonly { readonly name: string; readonly config: string }[] = [
  { name: 'one thread', config: `${walking}\nthreads = 1\n` },
  { name: 'node:zlib', config: `${walking}\ninflate = "zlib"\n` },
];

/** One layer of a GiB. */
const besideImage = 'big-files' satisfies ImageName;

/** Figures of one image in one packing, by what and by whom. */
type Figures = Map<string, Map<string, Timed[]>>;

export async function bench(rounds: number, options: BenchOptions): Promise<Report> {
  const dir = imagesDir(options.images);
  const peers: Peer['name'][] = containerdInstalled() ? ['troupe', 'containerd'] : ['troupe'];
  const rows: Row[] = [];
  const notes: string[] = [];
  const charts: Chart[] = [];
  const before = loadavg()[0]!.toFixed(1);
  for (const name of wanted(options.image)) {
    const image = await benchImage(name, dir, options.quick);
    const megabytes = 1024 + Math.ceil((1.4 * image.rawSize + 2 * image.packed.gzip.size) / 2 ** 20);
    const limits: Limit[][] = [];
    const figures = new Map<Packing, Figures>(packings.map((packing) => [packing, new Map()]));
    for (let round = 0; round < rounds; round++) {
      limits.push(await measureLimits(image, megabytes));
      for (const packing of packings) await oneRound(image, packing, megabytes, peers, figures.get(packing)!);
    }
    for (const [packing, each] of figures) rows.push(...rowsOf(`${name}, ${packing}`, each));
    if (name === besideImage) {
      const rounded = await inTurn(rounds, () => besideUnpacks(image, megabytes + (image.rawSize >> 20)));
      for (const [at, { what }] of rounded[0]!.entries())
        rows.push({
          what: `${name}, gzip: ${what}, p99 beside two unpacks, against idle`,
          unit: 'ms',
          ours: rounded.map((each) => each[at]!.busy),
          peer: rounded.map((each) => each[at]!.idle),
          more: false,
        });
    }
    notes.push(...notesOf(image, limits, figures));
    charts.push(chartOf(image, limits, figures));
  }
  notes.push(`load average ${before} before, ${loadavg()[0]!.toFixed(1)} after`);
  return { title: 'Unpack', peer: 'containerd', rows, notes, charts };
}

async function inTurn<T>(times: number, work: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let round = 0; round < times; round++) results.push(await work());
  return results;
}

function wanted(image: string | undefined): ImageName[] {
  if (image === undefined) return imageNames;
  const name = imageNames.find((each) => each === image);
  if (name === undefined) throw new Error(`no image ${image}: ${imageNames.join(', ')}`);
  return [name];
}

async function oneRound(
  image: BenchImage,
  packing: Packing,
  megabytes: number,
  peers: readonly Peer['name'][],
  figures: Figures,
): Promise<void> {
  const { archive } = image.packed[packing];
  const keep = (what: string, who: string, figure: Timed): void => {
    const all = figures.get(what) ?? new Map<string, Timed[]>();
    figures.set(what, all);
    all.set(who, [...(all.get(who) ?? []), figure]);
  };
  const unpacked = (name: Peer['name'], options: PeerOptions, how: string): Promise<void> =>
    withFreshPeer(name, megabytes, options, async (peer) => {
      const stored = await timed(peer.pid, () => importByCtr(peer, archive, false));
      if (how === '') keep('store only', name, stored);
      keep(
        'unpack',
        `${name}${how}`,
        await timed(peer.pid, () => unpackByClient(peer, image, packing, name === 'troupe')),
      );
    });
  for (const name of peers) {
    await withFreshPeer(name, megabytes, {}, async (peer) => {
      keep('import', name, await timed(peer.pid, () => importByCtr(peer, archive, true)));
    });
    await unpacked(name, {}, '');
  }
  for (const { name, config } of variants) {
    if (packing === 'gzip' || name !== 'node:zlib') await unpacked('troupe', { config }, `, ${name}`);
  }
}

const seconds = (figures: readonly Timed[] | undefined): number[] => (figures ?? []).map((each) => each.seconds);

function rowsOf(title: string, figures: Figures): Row[] {
  const rows: Row[] = [];
  for (const [what, by] of figures) {
    const ours = seconds(by.get('troupe'));
    rows.push({ what: `${title}: ${what}`, unit: 's', ours, peer: seconds(by.get('containerd')), more: false });
    for (const { name } of variants) {
      const other = by.get(`troupe, ${name}`);
      // How many times faster than our own other way.
      if (other !== undefined)
        rows.push({
          what: `${title}: ${what}, against our own ${name}`,
          unit: 's',
          ours,
          peer: seconds(other),
          more: false,
        });
    }
  }
  return rows;
}

function notesOf(image: BenchImage, rounds: readonly Limit[][], figures: ReadonlyMap<Packing, Figures>): string[] {
  const megabytes = image.rawSize / 1e6;
  const rate = (value: number): string => `${value.toFixed(2)} s, ${Math.round(megabytes / value)} MB/s`;
  const packed = packings.map((packing) => `${Math.round(image.packed[packing].size / 1e6)} MB ${packing}`).join(', ');
  const notes = [
    `${image.name}: ${image.files} files, ${image.layers.length} layers, ${Math.round(megabytes)} MB raw, ${packed}`,
  ];
  for (const [what, value] of mediansOf(rounds)) notes.push(`${image.name}, limit ${what}: ${rate(value)}`);
  for (const [packing, each] of figures) {
    for (const [what, by] of each) {
      const each = (of: (figure: Timed) => number, unit: string, digits: number): string =>
        [...by].map(([who, all]) => `${who} ${median(all.map(of)).toFixed(digits)} ${unit}`).join(', ');
      const peaks = each(({ extraMiB }) => extraMiB, 'MiB', 0);
      const cpu = each(({ cpuSeconds }) => cpuSeconds, 's', 1);
      const ours = by.get('troupe');
      notes.push(
        `${image.name}, ${packing}, ${what}: ${rate(median(seconds(ours)))}; processor time ${cpu}; peak extra memory ${peaks}`,
      );
    }
  }
  return notes;
}

function mediansOf(rounds: readonly Limit[][]): [string, number][] {
  return rounds[0]!.map(({ what }, i) => [what, median(rounds.map((round) => round[i]!.seconds))]);
}

function chartOf(image: BenchImage, rounds: readonly Limit[][], figures: ReadonlyMap<Packing, Figures>): Chart {
  const bars = [...figures].flatMap(([packing, each]) =>
    [...each].flatMap(([what, by]) =>
      [...by].map(([who, all]) => {
        const [series, how] = who.split(', ') as [string, string?];
        return {
          label: `${packing}, ${what}${how === undefined ? '' : `, ${how}`}`,
          value: median(seconds(all)),
          series,
        };
      }),
    ),
  );
  const limits = mediansOf(rounds).map(([what, value]) => ({ label: what, value, series: 'limit' }));
  const title = `${image.name}: ${image.files} files, ${Math.round(image.rawSize / 1e6)} MB, ${image.layers.length} layers`;
  return { name: `unpack-${image.name}`, title, unit: 's', bars: [...bars, ...limits] };
}
