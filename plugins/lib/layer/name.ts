/**
 * Names of a layer as byte strings: JavaScript strings of which each character is one byte (latin1).
 *
 * A layer's names are bytes in no particular encoding. As byte strings they can be split, compared and used as keys of a map without loss; they become
 * bytes again for a system call. They must never go to a function that takes text: it would encode them as UTF-8.
 */

export type ByteString = string;

export function toByteString(bytes: Buffer): ByteString {
  return bytes.toString('latin1');
}

/** The bytes of a name. ASCII stays a string, which the binding passes on faster and with the same result. */
export function toPath(name: ByteString): string | Buffer {
  return isAscii(name) ? name : Buffer.from(name, 'latin1');
}

function isAscii(name: ByteString): boolean {
  for (let i = 0; i < name.length; i++) if (name.charCodeAt(i) > 0x7f) return false;
  return true;
}

/**
 * The components of a name taken as absolute: no empty ones, no `.`, and `..` removes the one before it, at the root nothing. Purely textual, as
 * filepath.Clean of Go is, so `link/../x` is `x` wherever the link leads.
 */
export function cleanComponents(name: ByteString): ByteString[] {
  const components: ByteString[] = [];
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue;
    if (component === '..') components.pop();
    else components.push(component);
  }
  return components;
}

/**
 * A name cut in front of its last component, for a name that is clean where it is cut; the rest is good as it stands if it is known. The last component is ''
 * where there is more to look at: it begins with a dot, as whiteouts do, or there is none.
 */
export function lastComponent(name: ByteString): readonly [parent: ByteString, last: ByteString] {
  const from = name.startsWith('./') ? 2 : 0;
  const to = name.endsWith('/') ? name.length - 1 : name.length;
  const slash = name.lastIndexOf('/', to - 1);
  if (slash <= from || name[slash + 1] === '.') return ['', ''];
  return [name.slice(from, slash), name.slice(slash + 1, to)];
}

export function join(directory: ByteString, name: ByteString): ByteString {
  return directory === '' ? name : `${directory}/${name}`;
}

/** For messages: UTF-8 where it is, escapes for control characters and for what could reorder a terminal's line, at most 200 characters. */
export function quote(name: ByteString): string {
  const text = Buffer.from(name, 'latin1').toString('utf8');
  const short = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return `"${short.replace(/[\x00-\x1f"\\\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffd]/g, escaped)}"`;
}

function escaped(character: string): string {
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
}
