/** Records of snapshots as the messages of the Snapshots service, and what a filter sees of them. */
import { Failure } from 'troupe/plugin';
import { type Info, Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { type Adaptor, absent, field, labelField, present } from '../lib/filter/filter.ts';
import { decodeLabels, type Labels } from '../lib/label/label.ts';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { LoadedSnapshotter } from './snapshotters.ts';
import type { SnapshotRow } from './store.ts';

const kinds: Readonly<Record<number, string>> = {
  [Kind.VIEW]: 'view',
  [Kind.ACTIVE]: 'active',
  [Kind.COMMITTED]: 'committed',
};

export function toInfo(row: SnapshotRow, snapshotter: LoadedSnapshotter): Info {
  const labels = decodeLabels(row.labels);
  for (const [key, template] of snapshotter.labels) labels[key] ??= template.replaceAll('{id}', String(row.id));
  return {
    name: row.key,
    parent: row.parent_key,
    kind: row.kind as Info['kind'],
    createdAt: fromNanoseconds(BigInt(row.created)),
    updatedAt: fromNanoseconds(BigInt(row.updated)),
    labels,
  };
}

export function infoAdaptor(info: Info): Adaptor {
  return (path) => {
    switch (path[0]) {
      case 'kind':
        return present(kinds[info.kind] ?? 'unknown');
      case 'name':
        return field(info.name);
      // There for every snapshot, as with containerd, so that `parent==` is no parent.
      case 'parent':
        return present(info.parent);
      case 'labels':
        return labelField(info.labels, path);
      default:
        return absent;
    }
  };
}

/** Labels that the snapshotter is told: those that are meant for it. */
export function labelsForSnapshotter(labels: Labels): { [key: string]: string } {
  const kept = Object.entries(labels).filter(
    ([key]) => key === 'containerd.io/snapshot.ref' || key.startsWith('containerd.io/snapshot/'),
  );
  return Object.fromEntries(kept);
}

/** Keys are free text; what no client can mean is refused. @throws InvalidArgument */
export function validateKey(key: string, what: string): void {
  if (key === '') throw new Failure('InvalidArgument', `snapshot ${what} is required: invalid argument`);
  if (key.includes('\0')) throw new Failure('InvalidArgument', `snapshot ${what} contains NUL: invalid argument`);
}
