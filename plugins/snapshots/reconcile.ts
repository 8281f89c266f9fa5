/** Records and directories brought together after a crash, by looking at both and at nothing else. */
import type { PluginContext } from 'troupe/plugin';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { decodeLabels } from '../lib/label/label.ts';
import { labelsForSnapshotter } from './convert.ts';
import type { Sequence } from './sequence.ts';
import type { LoadedSnapshotter } from './snapshotters.ts';
import type { SnapshotRow, SnapshotStore } from './store.ts';

export interface Reconciling {
  readonly ctx: Pick<PluginContext, 'log' | 'signal'>;
  readonly store: SnapshotStore;
  readonly sequence: Sequence;
}

/**
 * Removes directories that no record, of whichever snapshotter, names and none will; makes those again that a power cut took from active
 * snapshots (what was in them had never been promised); tells of committed ones whose directory is lost.
 */
export async function reconcile(
  at: Reconciling,
  snapshotter: LoadedSnapshotter,
): Promise<{ removed: number; lost: number }> {
  const { client, name } = snapshotter;
  const options = { signal: at.ctx.signal };
  const { ids } = await client.list({}, options);
  const known = at.store.ids();
  const abandoned = ids.filter((id) => !known.has(id) && at.sequence.isAbandoned(Number(id)));
  for (const id of abandoned) {
    at.ctx.log.info('removing a directory that has no record', { snapshotter: name, id });
    await client.remove({ id }, options);
  }
  const present = new Set(ids);
  const lost = at.store.of(name).filter((row) => !present.has(String(row.id)));
  for (const row of lost) await restore(at, snapshotter, row);
  return { removed: abandoned.length, lost: lost.length };
}

async function restore(at: Reconciling, { client }: LoadedSnapshotter, row: SnapshotRow): Promise<void> {
  const fields = { namespace: row.ns, snapshotter: row.snapshotter, key: row.key, id: row.id };
  if (row.kind === Kind.COMMITTED) {
    at.ctx.log.error('the directory of a committed snapshot is gone: remove the snapshot and unpack it again', fields);
    return;
  }
  // Removed between the list and the look at the records.
  if (at.store.find(row) === undefined) return;
  at.ctx.log.warn('the directory of a snapshot was gone, it is empty now', fields);
  const labels = labelsForSnapshotter(decodeLabels(row.labels));
  const parents = at.store.chain(row.parent);
  const readonly = row.kind === Kind.VIEW;
  await client.prepare({ id: String(row.id), parents, readonly, labels }, { signal: at.ctx.signal });
}
