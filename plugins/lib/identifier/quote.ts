/**
 * A string as Go's `%q` prints it: error texts name objects this way, and clients of containerd match on those texts.
 *
 * Printable text stays as it is; `"`, `\` and control characters are escaped, unpaired surrogates become U+FFFD.
 */
const named: { readonly [character: string]: string } = {
  '"': '\\"',
  '\\': '\\\\',
  '\u0007': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
};

// What Go's strconv.IsPrint refuses: controls, formats, surrogates, private use, unassigned, and every space but U+0020.
const special = /["\\]|[^\P{C}]|[^\P{Z} ]/gu;

export function quote(text: string): string {
  return `"${text.toWellFormed().replace(special, spell)}"`;
}

function spell(character: string): string {
  const name = named[character];
  if (name !== undefined) return name;
  const code = character.codePointAt(0)!;
  if (code < 0x80) return `\\x${code.toString(16).padStart(2, '0')}`;
  if (code < 0x1_0000) return `\\u${code.toString(16).padStart(4, '0')}`;
  return `\\U${code.toString(16).padStart(8, '0')}`;
}
