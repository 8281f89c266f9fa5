/** Takes what changed in a snapshot as a layer. Its digest is the daemon's to find out, so a label says whose it is. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bytesOf } from '../random.ts';
import { rooted, type Turn } from '../turn.ts';
import { upperOf } from './snapshots.ts';

/** The checker takes content with this label for asked for. */
const diffLabel = 'faults.test/diff';

export async function diffs(turn: Turn): Promise<void> {
  const snapshotter = 'overlayfs';
  const parent = turn.ground.base.chainId;
  const prepare = (key: string) =>
    turn.ask(
      'snapshots.prepare',
      [{ object: turn.object('snapshot', snapshotter, key), state: { kind: 'active', parent } }],
      () => turn.snapshots.prepare({ snapshotter, key, parent, labels: rooted }),
    );
  const remove = (key: string) =>
    turn.ask('snapshots.remove', [{ object: turn.object('snapshot', snapshotter, key), state: null }], () =>
      turn.snapshots.remove({ snapshotter, key }),
    );
  const [old, changed] = [turn.unique('active'), turn.unique('active')];
  const [left, right] = [(await prepare(old)).mounts, (await prepare(changed)).mounts];
  const directory = join(upperOf(right), 'changed');
  mkdirSync(directory);
  writeFileSync(join(directory, 'file'), bytesOf(changed, turn.random.between(16, 100_000)));
  const ref = turn.unique('diff');
  const labels = { ...rooted, [diffLabel]: ref };
  // While it is being written it is an ingest of any length.
  turn.suppose([{ object: turn.object('ingest', ref), state: { min: 0, max: Number.MAX_SAFE_INTEGER } }]);
  const { diff } = await turn.askInSteps('diff.diff', [{ object: turn.object('ingest', ref), state: null }], () =>
    turn.diff.diff({ left, right, mediaType: '', ref, labels }),
  );
  const { digest, size } = diff!;
  const content = turn.object('content', digest);
  await turn.ask('content.info', [{ object: content, state: { size: Number(size) } }], () =>
    turn.content.info({ digest }),
  );
  await turn.ask('content.delete', [{ object: content, state: null }], () => turn.content.delete({ digest }));
  await remove(changed);
  await remove(old);
}
