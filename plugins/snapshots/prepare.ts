/** Prepare and View: the directory, then its record, then the answer. */
import { type Call, Failure, failpoint, type PluginContext } from 'troupe/plugin';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, type Labels, validateLabels } from '../lib/label/label.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { labelsForSnapshotter, validateKey } from './convert.ts';
import type { Sequence } from './sequence.ts';
import type { LoadedSnapshotter, Snapshotters } from './snapshotters.ts';
import { exists, type SnapshotName, type SnapshotRow, type SnapshotStore } from './store.ts';

export interface PrepareRequest {
  readonly snapshotter: string;
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
}

/** A snapshotter that prepares a snapshot out of some remote place says so by answering AlreadyExists, and names it by this label. */
const TARGET = 'containerd.io/snapshot.ref';
/** Failures after which the commit has certainly not happened. */
const certain = ['AlreadyExists', 'NotFound', 'FailedPrecondition', 'InvalidArgument', 'ResourceExhausted', 'Aborted'];

export interface Preparing {
  readonly ctx: Pick<PluginContext, 'exclusive' | 'log'>;
  readonly store: SnapshotStore;
  readonly sequence: Sequence;
  readonly snapshotters: Snapshotters;
}

export async function prepare(at: Preparing, request: PrepareRequest, readonly: boolean, call: Call): Promise<Mount[]> {
  const snapshotter = await at.snapshotters.get(request.snapshotter);
  const ns = requireNamespace(call);
  const { key, parent } = request;
  validateKey(key, 'key');
  validateLabels(request.labels, 'info.Labels');
  const labels = copyLabels(request.labels);
  const name = { ns, snapshotter: snapshotter.name, key };
  return at.ctx.exclusive(
    lockOf(name),
    async () => {
      const target = labels[TARGET];
      if (target !== undefined && at.store.find({ ...name, key: target }) !== undefined) {
        throw new Failure('AlreadyExists', `target snapshot ${quote(target)}: already exists`);
      }
      if (at.store.find(name) !== undefined) throw exists(key);
      const below = parent === '' ? undefined : requireParent(at.store, { ...name, key: parent });
      const mounts = await make(at, snapshotter, name, { below, readonly, labels }, call);
      failpoint('snapshots.prepare.reply');
      return mounts;
    },
    call.signal,
  );
}

export function lockOf({ ns, snapshotter, key }: SnapshotName): string {
  return `snapshot:${ns}/${snapshotter}/${key}`;
}

/** @throws NotFound, InvalidArgument when it is not committed */
export function requireParent(store: SnapshotStore, name: SnapshotName): SnapshotRow {
  const row = store.find(name);
  if (row === undefined) throw new Failure('NotFound', `parent snapshot ${name.key} does not exist: not found`);
  if (row.kind === Kind.COMMITTED) return row;
  throw new Failure(
    'InvalidArgument',
    `failed to create snapshot: parent ${quote(`${row.ns}/${row.id}/${row.key}`)} is not committed snapshot: invalid argument`,
  );
}

async function make(
  at: Preparing,
  { client }: LoadedSnapshotter,
  name: SnapshotName,
  wanted: { below: SnapshotRow | undefined; readonly: boolean; labels: Labels },
  call: Call,
): Promise<Mount[]> {
  const { below, readonly, labels } = wanted;
  const id = await at.sequence.next();
  // A client that goes away now must not leave half of it: what has begun is finished, within its own time.
  const options = { namespace: name.ns, trace: call.trace };
  try {
    failpoint('snapshots.prepare.directory');
    const parents = at.store.chain(below?.id ?? null);
    const { mounts } = await client
      .prepare({ id: String(id), parents, readonly, labels: labelsForSnapshotter(labels) }, options)
      .catch((error: unknown) => {
        throw named(error, name, below);
      });
    failpoint('snapshots.prepare.record');
    await at.store.create(name, { id, parent: below, readonly, labels }, call.lease);
    failpoint('snapshots.prepare.recorded');
    return mounts;
  } catch (error) {
    await undo(at, client, id, Failure.from(error));
    throw error;
  }
}

/** A snapshotter that misses the files of a parent knows ids; who asked knows names. */
function named(error: unknown, { ns, key }: SnapshotName, below: SnapshotRow | undefined): unknown {
  if (below === undefined || !Failure.is(error, 'NotFound')) return error;
  const what = `snapshot ${quote(key)} in namespace ${quote(ns)} cannot be made on its parent ${quote(below.key)}`;
  return new Failure('NotFound', `${what}: ${error.message}`, { cause: error });
}

/** Removes the directory that will have no record. Where it may yet have one, that is left to the next start, which knows. */
async function undo(at: Preparing, client: LoadedSnapshotter['client'], id: number, failure: Failure): Promise<void> {
  if (!certain.includes(failure.code)) return;
  at.sequence.abandon(id);
  try {
    await client.remove({ id: String(id) }, { timeoutMs: 60_000 });
  } catch (error) {
    at.ctx.log.warn('directory of a snapshot that was not made is left until the next cleanup', {
      id,
      error: String(error),
    });
  }
}
