/** Images out of the store into an archive: through Transfer by our own client, against `ctr images export`, which reads blobs through the API. */
import { loadavg } from 'node:os';
import { benchImage, imageNames, imagesDir, packings } from '../images.ts';
import { containerdInstalled, type Peer } from '../peers.ts';
import { exportByTransfer } from '../pull/client.ts';
import type { Report, Row } from '../report.ts';
import type { BenchOptions } from '../run.ts';
import { importByCtr, namespace, run, timed, withFreshPeer } from '../unpack/work.ts';

export async function bench(rounds: number, options: BenchOptions): Promise<Report> {
  const dir = imagesDir(options.images);
  const peers: Peer['name'][] = containerdInstalled() ? ['troupe', 'containerd'] : ['troupe'];
  const rows: Row[] = [];
  const notes = [`load average ${loadavg()[0]!.toFixed(1)} before`];
  for (const name of imageNames.filter((each) => each === (options.image ?? 'mixed'))) {
    const image = await benchImage(name, dir, options.quick);
    const megabytes = 512 + Math.ceil((2 * image.packed.gzip.size) / 2 ** 20);
    for (const packing of packings) {
      const { archive, reference } = image.packed[packing];
      const figures = { transfer: [] as number[], troupe: [] as number[], containerd: [] as number[] };
      for (let round = 0; round < rounds; round++) {
        for (const peer of peers) {
          await withFreshPeer(peer, megabytes, {}, async ({ address, pid }) => {
            await importByCtr({ address } as Peer, archive, false);
            const byCtr = () =>
              run('ctr', ['-a', address, '-n', namespace, 'images', 'export', '/dev/null', reference]);
            figures[peer].push((await timed(pid, byCtr)).seconds);
            if (peer !== 'troupe') return;
            const transfer = async (): Promise<void> => {
              const bytes = await exportByTransfer(address, reference);
              if (bytes < image.packed[packing].size) throw new Error(`an archive of ${bytes} bytes came`);
            };
            figures.transfer.push((await timed(pid, transfer)).seconds);
          });
        }
      }
      rows.push({
        what: `${name}, ${packing}: Transfer`,
        unit: 's',
        ours: figures.transfer,
        peer: figures.containerd,
        more: false,
      });
      rows.push({
        what: `${name}, ${packing}: ctr export`,
        unit: 's',
        ours: figures.troupe,
        peer: figures.containerd,
        more: false,
      });
    }
  }
  return { title: 'Export', peer: 'containerd', rows, notes };
}
