/** Commit: the content made durable and measured, then the record, then the answer. */
import { type Call, Failure, failpoint } from 'troupe/plugin';
import { type CommitSnapshotRequest, Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, decodeLabels, type Labels, validateLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { OMITTED } from '../lib/snapshot/omitted.ts';
import { validateKey } from './convert.ts';
import { lockOf, type Preparing, requireParent } from './prepare.ts';
import type { LoadedSnapshotter } from './snapshotters.ts';
import { exists, type SnapshotRow } from './store.ts';

export async function commit(at: Preparing, request: CommitSnapshotRequest, call: Call): Promise<void> {
  const snapshotter = await at.snapshotters.get(request.snapshotter);
  const ns = requireNamespace(call);
  const { key, name } = request;
  validateLabels(request.labels, 'info.Labels');
  const at_key = { ns, snapshotter: snapshotter.name, key };
  await at.ctx.exclusive(
    lockOf(at_key),
    async () => {
      validateKey(name, 'name');
      // Before the key: who commits again, or loses a race to the same name, is told that the work is done, as containerd tells it.
      if (at.store.find({ ...at_key, key: name }) !== undefined) throw exists(name);
      const row = at.store.require(at_key);
      if (row.kind !== Kind.ACTIVE) {
        const text = `failed to commit snapshot: snapshot ${quote(`${ns}/${row.id}/${key}`)} is not active: failed precondition`;
        throw new Failure('FailedPrecondition', text);
      }
      const parent = parentOf(at, snapshotter, row, request.parent);
      failpoint('snapshots.commit.sync');
      const { size, inodes } = await snapshotter.client.commit(
        { id: String(row.id), parents: at.store.chain(parent?.id ?? null) },
        call,
      );
      failpoint('snapshots.commit.record');
      await at.store.commit(
        row,
        { name, parent, labels: committedLabels(row, request.labels), size, inodes },
        call.lease,
      );
      failpoint('snapshots.commit.reply');
    },
    call.signal,
  );
}

/** Labels of the active snapshot end with it, as with containerd; but what its files lack they lack for good. */
function committedLabels(row: SnapshotRow, wanted: Labels): Labels {
  const omitted = decodeLabels(row.labels)[OMITTED];
  return omitted === undefined ? copyLabels(wanted) : { ...copyLabels(wanted), [OMITTED]: omitted };
}

/** The parent that it was prepared with, or, where the snapshotter can rebase, the one that is named now. */
function parentOf(
  at: Preparing,
  snapshotter: LoadedSnapshotter,
  row: SnapshotRow,
  named: string,
): SnapshotRow | undefined {
  const { ns } = row;
  if (named === '' || named === row.parent_key) {
    return row.parent === null
      ? undefined
      : requireParent(at.store, { ns, snapshotter: row.snapshotter, key: row.parent_key });
  }
  const what = `failed to commit snapshot: snapshot ${quote(row.key)} in namespace ${quote(ns)}`;
  if (row.parent !== null) {
    throw new Failure('FailedPrecondition', `${what} has parent ${quote(row.parent_key)} already: failed precondition`);
  }
  if (!snapshotter.rebase) {
    throw new Failure('InvalidArgument', `${what}: snapshotter ${snapshotter.name} cannot rebase: invalid argument`);
  }
  return requireParent(at.store, { ns, snapshotter: row.snapshotter, key: named });
}
