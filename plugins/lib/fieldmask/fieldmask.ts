/**
 * Update masks, google.protobuf.FieldMask as containerd reads it: paths are names of fields, and of one map entry each
 * after the map's name and a dot. Label keys contain dots themselves, so only the first one separates.
 */
import { Failure } from 'troupe/plugin';
import { quote } from '../identifier/quote.ts';

/** One path of a mask: `labels` → {field: 'labels'}; `labels.containerd.io/gc.root` → {field: 'labels', key: 'containerd.io/gc.root'}. */
export interface MaskPath {
  readonly field: string;
  /** The entry of a map field; undefined for the whole field. */
  readonly key: string | undefined;
}

export interface FieldMaskShape {
  /** Fields that may be named whole. */
  readonly fields: readonly string[];
  /** Map fields of which single entries may be named; whole ones only when they are in `fields` too. */
  readonly maps?: readonly string[];
  /** What the mask is about, for the message: `container`, `image`. */
  readonly what: string;
}

/**
 * The paths of a mask, in its order.
 *
 * @param paths `request.updateMask`; undefined or empty is no mask: the caller replaces all that may change.
 * @throws Failure InvalidArgument for a path that the shape does not allow, `*` among them.
 */
export function parseFieldMask(paths: readonly string[] | undefined, shape: FieldMaskShape): MaskPath[] {
  return (paths ?? []).map((path) => {
    const dot = path.indexOf('.');
    if (dot > 0 && dot < path.length - 1) {
      const field = path.slice(0, dot);
      if (shape.maps?.includes(field)) return { field, key: path.slice(dot + 1) };
    } else if (shape.fields.includes(path)) return { field: path, key: undefined };
    throw new Failure('InvalidArgument', `cannot update ${quote(path)} field of ${shape.what}: invalid argument`);
  });
}
