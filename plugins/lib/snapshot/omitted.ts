/**
 * What of a layer is not in its snapshot, because the daemon may not do it: kept with the snapshot's record, where `Stat` and `List` show it.
 *
 *   troupe/omitted = "ownership,device,xattr,mode"      any of the four, in the order in which they came up
 *
 * Of modes only the bits are added that keep the owner from his own files. Owners, devices, attributes and modes themselves are in the layer, which the content store has; whoever unpacks it with the privilege gets them.
 */
export const OMITTED = 'troupe/omitted';

/** The value that tells of both. */
export function joinOmitted(before: string | undefined, more: readonly string[]): string {
  return [...new Set([...(before === undefined || before === '' ? [] : before.split(',')), ...more])].join(',');
}
