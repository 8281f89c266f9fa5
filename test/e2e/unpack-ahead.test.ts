/** Layers that are unpacked before their parents are there must show, mounted, what they show when each waits for the one below. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { mountOn, umount2 } from 'troupe/sys';
import { importImage, unpack } from '../../demo/import.ts';
import { Progress } from '../../demo/progress.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { inventory } from '../../plugins/lib/layer/inventory.ts';
import { archive, type Crafted, entry } from '../../plugins/lib/tar/craft.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { imageOf } from '../helpers/demo-image.ts';
import { rootTest } from '../helpers/privilege.ts';

const dir = (name: string, more: Crafted = {}): Buffer => entry({ name, type: '5', mode: 0o755, mtime: 1111, ...more });
const file = (name: string, more: Crafted = {}): Buffer => entry({ name, body: name, mtime: 2222, ...more });

const image = imageOf('ahead.test/image:1', [
  archive(
    dir('etc', { mode: 0o750, uid: 7 }),
    file('etc/gone'),
    file('etc/kept'),
    dir('d'),
    file('d/old'),
    file('plain'),
  ),
  // Stands alone: whiteouts and an opaque directory in directories that it lists.
  archive(dir('etc', { mode: 0o750, uid: 7 }), file('etc/.wh.gone'), dir('d'), file('d/.wh..wh..opq'), file('d/new')),
  // Lean on those below: a directory that is not listed, a link to a file that is not brought.
  archive(file('etc/added', { uid: 9 })),
  archive(entry({ name: 'again', type: '1', link: 'plain', mtime: 2222 })),
  archive(file('.wh.plain'), file('last')),
]);

rootTest('ahead or in order, the same is mounted; layers that lean on others wait, with the reason', async (t) => {
  t.timeout(120_000);
  const daemon = await useDaemon(t);
  const seen: string[][] = [];
  for (const parallel of [true, false]) {
    const client = new GrpcClient(daemon.address, { namespace: parallel ? 'ahead' : 'in-order' });
    t.teardown(() => client.close());
    const progress = new Progress();
    const lease = await importImage(client, image, progress);
    const { chain, waited } = await unpack(client, image, { snapshotter: 'overlayfs', parallel }, lease, progress);
    t.deepEqual(
      [...waited].map(([{ what }, why]) => `${what}: ${why}`).sort(),
      parallel
        ? [
            'layer 2: it does not list "etc" before what is in it',
            'layer 3: it has a hard link to a file of a layer below',
          ]
        : [],
    );
    const snapshots = typedClient(client, SnapshotsDefinition);
    const { mounts } = await snapshots.view({ snapshotter: 'overlayfs', key: 'v', parent: chain.at(-1)!, labels: {} });
    const target = join(daemon.dir, `seen-${parallel}`);
    mkdirSync(target);
    mountOn(target, mounts[0]!);
    try {
      seen.push(inventory(target, { directoryTimes: false }));
    } finally {
      umount2(target);
    }
  }
  t.deepEqual(seen[0], seen[1]);
  t.deepEqual(
    seen[0]!.map((line) => line.split(' ')[0]),
    ['"again"', '"d"', '"d/new"', '"etc"', '"etc/added"', '"etc/kept"', '"last"'],
  );
});
