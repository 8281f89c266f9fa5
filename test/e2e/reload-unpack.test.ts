/**
 * Everything that an unpack goes through is replaced in the middle of it. Layers are of a type that a program of the config makes a layer of, and that program
 * waits for the test: so the reloads are amid the unpack, however fast the machine is.
 */
import { createReadStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ExecutionContext } from 'ava';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { ImageImportStream } from 'troupe/proto/containerd/types/transfer/archive.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { mountOn, umount2 } from 'troupe/sys';
import { GrpcClient } from '../../kernel/front/client.ts';
import { inventory } from '../../plugins/lib/layer/inventory.ts';
import { run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { busyboxLayer, imageLayout, type Layout, upperLayer, writeOciArchive } from '../helpers/image.ts';
import { needing } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';
import { OpenedStream, pack, storeEnd, transfer } from '../helpers/transfer.ts';
import { useClient } from '../helpers/trouped.ts';

const unpackTest = needing('root', 'mount', 'program ctr', 'program busybox');
const involved = [
  'io.containerd.content.v1.content',
  'io.containerd.service.v1.snapshots-service',
  'io.containerd.snapshotter.v1.overlayfs',
  'io.containerd.differ.v1.walking',
  'io.containerd.transfer.v1.local',
  'io.containerd.streaming.v1.manager',
  'io.containerd.service.v1.leases-service',
  'io.containerd.service.v1.images-service',
  'troupe.records.v1.records',
] as const;
/** …of which each further layer meets another generation. */
const again: readonly string[] = involved.slice(0, 3);
const name = 'example.test/gated:1';
const gated = 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted';

/** Says that it is there, waits until it may go on, and gives back what it got. */
const gate = `mkfifo "$1/go-$$"
echo $$ > "$1/arrived"
read -r _ < "$1/go-$$"
exec cat
`;

function manyFiles(dir: string): void {
  for (let each = 0; each < 500; each++) {
    const folder = join(dir, 'many', String(each % 30));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, String(each)), `file ${each}\n`.repeat(each % 50));
  }
  writeFileSync(join(dir, 'etc-marker'), 'third');
}

interface Gated {
  readonly daemon: Daemon;
  readonly image: Layout;
  readonly archive: string;
  /** Each layer that has begun to be unpacked: what lets it go on. */
  readonly arrivals: AsyncIterator<() => Promise<void>>;
}

async function useGated(t: ExecutionContext): Promise<Gated> {
  t.timeout(120_000);
  const dir = useScratch(t, 'gate');
  await run('mkfifo', [join(dir, 'arrived')]);
  writeFileSync(join(dir, 'gate'), gate);
  // Open for writing as well: it does not end with the first who writes.
  const arrived = createReadStream(join(dir, 'arrived'), { flags: 'r+' });
  const lines = createInterface({ input: arrived })[Symbol.asyncIterator]();
  const daemon = await useDaemon(t, {
    config: `version = 2
[plugins."io.containerd.transfer.v1.local"]
docker_config = "none"
[stream_processors."test.gate"]
accepts = ["${gated}"]
returns = "application/vnd.oci.image.layer.v1.tar+gzip"
path = "sh"
args = ["${join(dir, 'gate')}", "${dir}"]
`,
  });
  t.teardown(() => {
    arrived.destroy();
    // It reads, and the process would not end before that has.
    writeFileSync(join(dir, 'arrived'), 'over\n');
  });
  const image = imageLayout({ layers: [busyboxLayer, upperLayer, manyFiles], layerType: gated });
  const archive = join(dir, 'image.tar');
  writeOciArchive(archive, image, name);
  async function* arrivals() {
    for (;;) {
      const { value, done } = await lines.next();
      if (done === true) return;
      yield () => writeFile(join(dir, `go-${value}`), 'go\n');
    }
  }
  return { daemon, image, archive, arrivals: arrivals() };
}

/** What the unpacked image shows when it is mounted. */
async function shown(t: ExecutionContext, { daemon, image }: Gated, namespace: string) {
  const snapshots = useClient(t, daemon, SnapshotsDefinition, namespace);
  const parent = image.chainIds.at(-1)!;
  const { mounts } = await snapshots.view({ snapshotter: 'overlayfs', key: 'seen', parent, labels: {} });
  const target = join(daemon.dir, `seen-${namespace}`);
  mkdirSync(target);
  mountOn(target, mounts[0]!);
  try {
    return inventory(target, { directoryTimes: false });
  } finally {
    umount2(target);
  }
}

/** Lets each layer through, after `before`, until `work` is over. */
async function through<T>({ arrivals }: Gated, work: Promise<T>, before: (layer: number) => Promise<void>): Promise<T> {
  work.catch(() => {});
  for (let layer = 0; layer < 3; layer++) {
    const arrival = await Promise.race([arrivals.next(), work.then(() => undefined)]);
    if (arrival === undefined || arrival.done === true) throw new Error(`it was over after ${layer} layers`);
    await before(layer);
    await arrival.value();
  }
  return work;
}

const importAsCtr = async ({ daemon, archive }: Gated, namespace: string): Promise<void> => {
  const { code, stdout, stderr } = await daemon.ctr(['images', 'import', archive], { namespace });
  if (code !== 0) throw new Error(stdout + stderr);
};

async function importByTransfer(t: ExecutionContext, { daemon, archive }: Gated, namespace: string): Promise<void> {
  const client = new GrpcClient(daemon.address, { namespace });
  t.teardown(() => client.close());
  const stream = await OpenedStream.open(client, 'archive', {});
  const sending = stream.sendBytes(readFileSync(archive)).catch(() => {});
  try {
    await transfer(
      client,
      pack(ImageImportStream, { stream: stream.id }),
      storeEnd({
        extraReferences: [{ name: 'unnamed', isPrefix: true, allowOverwrite: true }],
        unpacks: [
          {
            platform: { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' },
            snapshotter: 'overlayfs',
          },
        ],
      }),
      {},
    );
  } finally {
    stream.close();
    await sending;
  }
}

for (const [what, work] of [
  ['ctr images import', (_t: ExecutionContext, rig: Gated, namespace: string) => importAsCtr(rig, namespace)],
  ['an import through Transfer', importByTransfer],
] as const) {
  unpackTest.serial(
    `B14 ${what} goes on while all that it goes through is reloaded, some of it at every layer, and unpacks what it would have`,
    async (t) => {
      const rig = await useGated(t);
      const { daemon } = rig;
      await through(rig, work(t, rig, 'calm'), async () => {});
      const kernel = useClient(t, daemon, KernelDefinition);
      await through(rig, work(t, rig, 'reloaded'), async (layer) => {
        for (const id of layer === 0 ? involved : again) {
          const { outcome, reason } = await kernel.reload({ id, force: true });
          t.is(outcome, 'reloaded', `${id}: ${reason}`);
        }
      });
      for (const { id, generation, restarts } of (await kernel.list({ ids: [...involved] })).plugins)
        t.deepEqual([generation, restarts], [again.includes(id) ? 4 : 2, 0], id);
      t.deepEqual(await shown(t, rig, 'reloaded'), await shown(t, rig, 'calm'));
      const ctr = async (...args: string[]) => (await daemon.ctr(args, { namespace: 'reloaded' })).stdout;
      t.regex(await ctr('images', 'check'), /gated:1 .* complete \(4\/4\).* true/);
      for (const chainId of rig.image.chainIds) t.regex(await ctr('snapshots', 'ls'), new RegExp(`^${chainId}`, 'm'));
      t.notRegex(await ctr('snapshots', 'ls'), /extract-/);
      t.is(await ctr('leases', 'ls', '-q'), '');
      t.regex(await ctr('content', 'active'), /^REF[^\n]*\n$/);
    },
  );
}
