/** What Update may change: labels, all of them or those that the mask names. */
import { Failure } from 'troupe/plugin';
import { quote } from '../lib/identifier/quote.ts';
import { copyLabels, decodeLabels, type Labels, setLabel, validateLabels } from '../lib/label/label.ts';
import type { SnapshotRow } from './store.ts';

const ENTRY = 'labels.';

/** @throws InvalidArgument for a path of the mask that is not of labels, and for labels that are too long */
export function changedLabels(row: SnapshotRow, wanted: Labels, paths: readonly string[]): Labels {
  if (paths.length === 0) {
    validateLabels(wanted, 'info.Labels');
    return copyLabels(wanted);
  }
  let labels = decodeLabels(row.labels);
  for (const path of paths) {
    if (path === 'labels') labels = copyLabels(wanted);
    else if (path.startsWith(ENTRY)) {
      const key = path.slice(ENTRY.length);
      setLabel(labels, key, Object.hasOwn(wanted, key) ? wanted[key]! : '');
    } else {
      throw new Failure(
        'InvalidArgument',
        `cannot update ${quote(path)} field on snapshot ${quote(row.key)}: invalid argument`,
      );
    }
  }
  validateLabels(labels, 'info.Labels');
  return labels;
}
