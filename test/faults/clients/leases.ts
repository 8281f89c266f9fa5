/** Makes things that only a lease keeps, and lets them go with it. */
import type { Turn } from '../turn.ts';
import { write } from './contents.ts';

export async function leases(turn: Turn): Promise<void> {
  const { random } = turn;
  const id = turn.unique('lease');
  const labels = { faults: id };
  await turn.ask('leases.create', [{ object: turn.object('lease', id), state: { labels } }], () =>
    turn.leases.create({ id, labels }),
  );
  const size = random.between(16, 5000);
  const digest = await write(turn, `${turn.unique('blob')}~${size}`, size, { labels: {}, lease: id });
  const key = turn.unique('leased');
  const snapshot = turn.object('snapshot', 'overlayfs', key);
  await turn.ask('snapshots.prepare', [{ object: snapshot, state: { kind: 'active', parent: '' } }], () =>
    turn.snapshots.prepare({ snapshotter: 'overlayfs', key, parent: '', labels: {} }, { lease: id }),
  );
  if (random.chance(0.3)) return;
  await turn.askInSteps(
    'leases.delete',
    [
      { object: turn.object('lease', id), state: null },
      { object: turn.object('content', digest), state: null },
      { object: snapshot, state: null },
    ],
    () => turn.leases.delete({ id, sync: true }),
  );
}
