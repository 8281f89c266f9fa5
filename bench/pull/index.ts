/**
 * Images from a registry onto a disk, ready to run: each time into a fresh daemon on a fresh ext4, ours and containerd in turns.
 *
 *   pull      Transfer by our own client, against `ctr images pull`, which fetches by itself and has the daemon unpack one layer after the other
 *   ctr pull  `ctr images pull` against both
 *   import    an archive through Transfer, against `ctr images import`
 *   crowd     20 clients that pull the same image at once: bytes that the registry sends, against one pull
 */
import { loadavg } from 'node:os';
import {
  type BenchImage,
  benchImage,
  imagesDir,
  type ImageName,
  imageNames,
  type Packing,
  packings,
} from '../images.ts';
import { containerdInstalled, type Peer } from '../peers.ts';
import { BenchRegistry } from '../registry.ts';
import { median, type Report, type Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { importByCtr, namespace, run, type Timed, timed, withFreshPeer } from '../unpack/work.ts';
import { importByTransfer, pullByTransfer } from './client.ts';

const crowd = 20;

type Figures = Map<string, { ours: Timed[]; peer: Timed[] }>;

export async function bench(rounds: number, options: BenchOptions): Promise<Report> {
  const registry = await new BenchRegistry().start();
  const dir = imagesDir(options.images);
  const rows: Row[] = [];
  const notes: string[] = [];
  const before = loadavg()[0]!.toFixed(1);
  try {
    for (const name of imageNames.filter((each) => each === (options.image ?? ('mixed' satisfies ImageName)))) {
      const image = await benchImage(name, dir, options.quick);
      const megabytes = 1024 + Math.ceil((1.4 * image.rawSize + 2 * image.packed.gzip.size) / 2 ** 20);
      for (const packing of packings) {
        const reference = await registry.push(image, packing);
        const figures: Figures = new Map();
        for (let round = 0; round < rounds; round++) await oneRound(image, packing, reference, megabytes, figures);
        for (const [what, { ours, peer }] of figures) {
          rows.push({
            what: `${name}, ${packing}: ${what}`,
            unit: 's',
            ours: seconds(ours),
            peer: seconds(peer),
            more: false,
          });
          const memory = [ours, peer]
            .filter((each) => each.length > 0)
            .map((each) => `${Math.round(median(each.map(({ extraMiB }) => extraMiB)))} MiB`);
          const rate = Math.round(image.rawSize / 1e6 / median(seconds(ours)));
          notes.push(
            `${name}, ${packing}, ${what}: ${rate} MB/s raw; peak extra memory ${memory.join(', containerd ')}`,
          );
        }
        notes.push(await crowdNote(registry, reference, megabytes));
      }
      notes.push(
        `${name}: ${image.files} files, ${image.layers.length} layers, ${Math.round(image.rawSize / 1e6)} MB raw, ${Math.round(image.packed.gzip.size / 1e6)} MB gzip, ${Math.round(image.packed.zstd.size / 1e6)} MB zstd`,
      );
    }
  } finally {
    await registry.stop();
  }
  notes.push(`load average ${before} before, ${loadavg()[0]!.toFixed(1)} after`);
  return { title: 'Pull', peer: 'containerd', rows, notes };
}

const seconds = (figures: readonly Timed[]): number[] => figures.map((each) => each.seconds);

async function oneRound(
  image: BenchImage,
  packing: Packing,
  reference: string,
  megabytes: number,
  figures: Figures,
): Promise<void> {
  const { archive } = image.packed[packing];
  const measure = async (what: string, name: Peer['name'], work: (peer: Peer) => Promise<void>): Promise<void> => {
    const kept = figures.get(what) ?? { ours: [], peer: [] };
    figures.set(what, kept);
    await withFreshPeer(name, megabytes, {}, async (peer) => {
      kept[name === 'troupe' ? 'ours' : 'peer'].push(await timed(peer.pid, () => work(peer)));
    });
  };
  const byCtr = ({ address }: Peer): Promise<void> =>
    run('ctr', ['-a', address, '-n', namespace, 'images', 'pull', '--plain-http', reference]);
  await measure('pull', 'troupe', ({ address }) => pullByTransfer(address, reference));
  if (containerdInstalled()) await measure('pull', 'containerd', byCtr);
  await measure('ctr pull', 'troupe', byCtr);
  await measure('import', 'troupe', ({ address }) => importByTransfer(address, archive));
  if (!containerdInstalled()) return;
  figures.get('ctr pull')!.peer.push(figures.get('pull')!.peer.at(-1)!);
  await measure('import', 'containerd', (peer) => importByCtr(peer, archive, true));
}

async function crowdNote(registry: BenchRegistry, reference: string, megabytes: number): Promise<string> {
  const sent: number[] = [];
  for (const clients of [1, crowd]) {
    await withFreshPeer('troupe', megabytes, {}, async ({ address }) => {
      const before = registry.sent;
      await Promise.all(Array.from({ length: clients }, () => pullByTransfer(address, reference)));
      sent.push(registry.sent - before);
    });
  }
  const [one, all] = sent as [number, number];
  return `${crowd} clients at once: ${all.toLocaleString('en')} bytes from the registry, ${(all / one).toFixed(4)}× of one pull`;
}
