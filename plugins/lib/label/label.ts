/**
 * Labels of records: how they are checked, stored and changed. One convention for all nouns.
 *
 * **In SQL** the labels of a record are one column of its own row, JSON text with string values:
 *
 *     labels TEXT NOT NULL DEFAULT '{}'          -- {"containerd.io/gc.root":"2026-01-01T00:00:00Z"}
 *
 * Written by {@link encodeLabels}, read by {@link decodeLabels}. Not a side table: a record is written and read as one row, and
 * filters run over decoded records anyway. One label in SQL: `labels ->> '$."containerd.io/gc.expire"'`.
 *
 * **References** that labels express (`gc.ref.*`, `gc.bref.*`, `gc.root`) are kept by records in one indexed table, which three
 * triggers in the noun's migration feed ('image' stands for the noun's GC kind: 'content', 'container', 'snapshot/' || new.snapshotter …):
 *
 *     CREATE TRIGGER images_image_labels_insert AFTER INSERT ON images_image
 *       WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
 *       INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', new.ns, new.name, new.labels);
 *     END;
 *     CREATE TRIGGER images_image_labels_update AFTER UPDATE OF labels ON images_image
 *       WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
 *       INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', new.ns, new.name, new.labels);
 *     END;
 *     CREATE TRIGGER images_image_labels_delete AFTER DELETE ON images_image
 *       WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
 *       INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', old.ns, old.name, '{}');
 *     END;
 *
 * So a noun's `NOUN_gc_edge` and `NOUN_gc_root` hold only what its own columns say (an image's target, a snapshot's parent);
 * label edges and `gc.root` come from records. The rest of the building blocks is at the top of plugins/records/migrations/001-records.sql.
 *
 * **Changing** labels is read, change, write with an expectation:
 *
 *     UPDATE images_image SET labels = ? WHERE ns = ? AND name = ? AND labels = ?     -- rows: 1, otherwise: Aborted → read again
 */
import { Failure } from 'troupe/plugin';

export type Labels = { readonly [key: string]: string };

/** Bytes of key and value together. */
export const maxLabelSize = 4096;

/**
 * @param where names the field in front of containerd's text: `namespace.Labels`, `image.Labels`.
 * @throws Failure InvalidArgument when a key and its value are longer than 4096 bytes together.
 */
export function validateLabels(labels: Labels, where = ''): void {
  for (const key of Object.keys(labels)) validateLabel(key, labels[key]!, where);
}

/** One label; see {@link validateLabels}. */
export function validateLabel(key: string, value: string, where = ''): void {
  // UTF-16 length is a lower bound of the byte length and three times it an upper one: most labels need no counting.
  if ((key.length + value.length) * 3 <= maxLabelSize) return;
  if (Buffer.byteLength(key) + Buffer.byteLength(value) <= maxLabelSize) return;
  const prefix = where === '' ? '' : `${where}: `;
  throw new Failure(
    'InvalidArgument',
    `${prefix}label key and value greater than maximum size (${maxLabelSize} bytes), key: ${Array.from(key).slice(0, 10).join('')}: invalid argument`,
  );
}

/** The column's text. Keys are sorted, so equal labels are equal text and `WHERE labels = ?` compares them. */
export function encodeLabels(labels: Labels): string {
  const keys = Object.keys(labels);
  if (keys.length === 0) return '{}';
  if (keys.length === 1) return `{${JSON.stringify(keys[0])}:${JSON.stringify(labels[keys[0]!])}}`;
  // By hand and not through an object: integer-like keys would move to the front, and `__proto__` would vanish.
  return `{${keys
    .sort()
    .map((key) => `${JSON.stringify(key)}:${JSON.stringify(labels[key])}`)
    .join(',')}}`;
}

/** The labels of a column's text. `__proto__` stays an ordinary key. */
export function decodeLabels(text: string): { [key: string]: string } {
  return text === '{}' ? {} : (JSON.parse(text) as { [key: string]: string });
}

/**
 * Labels after a change of some: an empty value deletes its key, as containerd does wherever a mask names one label.
 * A new object; `current` stays as it is.
 */
export function mergeLabels(current: Labels, changes: Labels): { [key: string]: string } {
  const result = copyLabels(current);
  for (const key of Object.keys(changes)) setLabel(result, key, changes[key]!);
  return result;
}

/** Sets one label in place; an empty value deletes it. */
export function setLabel(labels: { [key: string]: string }, key: string, value: string): void {
  if (value === '') delete labels[key];
  else define(labels, key, value);
}

/** The labels without those of empty value: what a full replacement keeps. A new object. */
export function copyLabels(labels: Labels): { [key: string]: string } {
  const result: { [key: string]: string } = {};
  for (const key of Object.keys(labels)) if (labels[key] !== '') define(result, key, labels[key]!);
  return result;
}

function define(labels: { [key: string]: string }, key: string, value: string): void {
  // A plain assignment to __proto__ is lost.
  if (key === '__proto__')
    Object.defineProperty(labels, key, { value, enumerable: true, configurable: true, writable: true });
  else labels[key] = value;
}
