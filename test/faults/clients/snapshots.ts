/** Builds chains of snapshots with files in them, and takes them down again from the top, sometimes not to the bottom. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { filesBelow } from '../images.ts';
import { bytesOf } from '../random.ts';
import { rooted, type Turn } from '../turn.ts';

export async function snapshots(turn: Turn): Promise<void> {
  const { random } = turn;
  const snapshotter = random.pick(['overlayfs', 'native']);
  const object = (key: string) => turn.object('snapshot', snapshotter, key);
  const chain: string[] = [];
  for (let depth = random.between(1, 5); depth > 0; depth--) {
    const key = turn.unique('active');
    const parent = chain.at(-1) ?? '';
    const { mounts } = await turn.ask(
      'snapshots.prepare',
      [{ object: object(key), state: { kind: 'active', parent } }],
      () => turn.snapshots.prepare({ snapshotter, key, parent, labels: rooted }),
    );
    const upper = upperOf(mounts);
    for (let count = random.between(0, 4); count > 0; count--) {
      const path = join(upper, `${key}.d`, String(count));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytesOf(`${key} ${count}`, random.between(0, 60_000)));
    }
    const name = turn.unique('layer');
    await turn.ask(
      'snapshots.commit',
      [
        { object: object(key), state: null },
        {
          object: object(name),
          state: { kind: 'committed', parent, files: filesBelow(upper, join(upper, `${key}.d`)) },
        },
      ],
      () => turn.snapshots.commit({ snapshotter, key, name, labels: rooted }),
    );
    chain.push(name);
  }
  if (random.chance(0.5)) {
    const key = turn.unique('view');
    const parent = chain.at(-1)!;
    await turn.ask('snapshots.view', [{ object: object(key), state: { kind: 'view', parent } }], () =>
      turn.snapshots.view({ snapshotter, key, parent, labels: rooted }),
    );
    await turn.ask('snapshots.remove', [{ object: object(key), state: null }], () =>
      turn.snapshots.remove({ snapshotter, key }),
    );
  }
  const stay = random.chance(0.2) ? random.between(0, chain.length) : 0;
  for (const key of chain.slice(stay).reverse())
    await turn.ask('snapshots.remove', [{ object: object(key), state: null }], () =>
      turn.snapshots.remove({ snapshotter, key }),
    );
}

/** The directory that what is written to the mounts ends up in. */
export function upperOf(mounts: readonly Mount[]): string {
  const [mount] = mounts;
  if (mount?.type === 'bind') return mount.source;
  const upper = mount?.options.find((option) => option.startsWith('upperdir='));
  if (upper === undefined) throw new Error(`no place to write to in ${JSON.stringify(mounts)}`);
  return upper.slice('upperdir='.length);
}
