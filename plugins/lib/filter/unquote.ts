/** A quoted literal of a filter → its text: Go's escapes, and the mark that quotes it. */

const single: { readonly [character: string]: string } = {
  a: '\u0007',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
};

const digits: { readonly [character: string]: number } = { x: 2, u: 4, U: 8 };

/** @param literal with its marks: `"…"`, `/…/`, `|…|`. Undefined when an escape in it is none. */
export function unquote(literal: string): string | undefined {
  const mark = literal[0]!;
  const end = literal.length - 1;
  let result = '';
  // \x and octal escapes are bytes: text beyond ASCII can be spelled with them.
  let bytes: number[] = [];
  const flush = () => {
    if (bytes.length > 0) result += Buffer.from(bytes).toString();
    bytes = [];
  };
  for (let at = 1; at < end; ) {
    if (literal[at] !== '\\') {
      flush();
      result += literal[at];
      at += 1;
      continue;
    }
    const kind = literal[at + 1] ?? '';
    const count = digits[kind] ?? (/[0-7]/.test(kind) ? 3 : 0);
    if (count === 0) {
      const text = kind === mark ? mark : single[kind];
      if (text === undefined || at + 1 >= end) return undefined;
      flush();
      result += text;
      at += 2;
      continue;
    }
    const from = count === 3 ? at + 1 : at + 2;
    const number = literal.slice(from, from + count);
    if (from + count > end || !(count === 3 ? /^[0-3][0-7]{2}$/ : /^[0-9A-Fa-f]+$/).test(number)) return undefined;
    const code = Number.parseInt(number, count === 3 ? 8 : 16);
    if (count < 4) bytes.push(code);
    else {
      if (code > 0x10_ffff || (code >= 0xd800 && code < 0xe000)) return undefined;
      flush();
      result += String.fromCodePoint(code);
    }
    at = from + count;
  }
  flush();
  return result;
}
