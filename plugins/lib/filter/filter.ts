/**
 * containerd's filters. A list of filters matches when one of them does; a filter is selectors joined by commas, all of which must match.
 *
 *     filter    := selector ("," selector)*
 *     selector  := field ("." field)* [("==" | "!=" | "~=") value]     without operator: the field is there
 *     field     := [A-Za-z0-9_]+ | quoted
 *     value     := anything up to a comma or a space | quoted
 *     quoted    := "…" with Go's escapes; after ~= also /…/ and |…|
 *
 * Space may stand in front of a field, an operator and a value.
 *
 * `!=` and `~=` look at the value alone, so an absent field is the empty text to them. `~=` finds an RE2 expression anywhere in it.
 */
import { Failure } from 'troupe/plugin';
import { compileRegexp } from './regexp.ts';
import { parseSelectors } from './selector.ts';

/** Looks one field up in the thing that is being filtered. `present` is also what a selector without operator asks. */
export type Adaptor = (fieldpath: readonly string[]) => Field;

export interface Field {
  readonly value: string;
  readonly present: boolean;
}

export type Filter = (adaptor: Adaptor) => boolean;

export const absent: Field = { value: '', present: false };

/** A field that is there. */
export function present(value: string): Field {
  return { value, present: true };
}

/** A field of a message: like containerd, there when it is not empty. */
export function field(value: string): Field {
  return { value, present: value.length > 0 };
}

/** `labels.<key>`: the rest of the path is the key, dots and all. `labels` alone is absent. */
export function labelField(labels: { readonly [key: string]: string }, fieldpath: readonly string[]): Field {
  if (fieldpath.length < 2) return absent;
  const key = fieldpath.length === 2 ? fieldpath[1]! : fieldpath.slice(1).join('.');
  return Object.hasOwn(labels, key) ? present(labels[key]!) : absent;
}

/** Bytes of all filters of a call together. */
const maxFilterSize = 64 * 1024;

/**
 * A predicate that is true when one of the filters matches; no filters match everything.
 *
 * @throws Failure InvalidArgument: a filter that does not parse (containerd's text, with the place), an expression that is
 *   none or is too big, more than 64 KiB of filters.
 */
export function parseFilters(filters: readonly string[]): Filter {
  if (filters.length === 0) return () => true;
  let size = 0;
  for (const text of filters) size += text.length;
  if (size > maxFilterSize)
    throw new Failure('InvalidArgument', `filters: longer than ${maxFilterSize} characters together: invalid argument`);
  const parsed = filters.map(parseFilter);
  return parsed.length === 1 ? parsed[0]! : (adaptor) => parsed.some((filter) => filter(adaptor));
}

function parseFilter(text: string): Filter {
  // The empty filter matches everything.
  if (text === '') return () => true;
  const selectors = parseSelectors(text).map(({ fieldpath, operator, value }): Filter => {
    switch (operator) {
      case '==':
        return (adaptor) => {
          const found = adaptor(fieldpath);
          return found.present && found.value === value;
        };
      case '!=':
        return (adaptor) => adaptor(fieldpath).value !== value;
      case '~=': {
        const expression = compileRegexp(value);
        return (adaptor) => expression(adaptor(fieldpath).value);
      }
      default:
        return (adaptor) => adaptor(fieldpath).present;
    }
  });
  return selectors.length === 1 ? selectors[0]! : (adaptor) => selectors.every((selector) => selector(adaptor));
}
