/**
 * Which line of a TOML document a key stands on. smol-toml gives values without positions, so this walks the text once more. It is
 * called only after the parser accepted the document, hence checks nothing and is a third of a parser's size.
 */

/** Key path → line from 1. A path's parts are joined by NUL, which TOML allows in no key; an array's elements are parts `0`, `1`, …. */
export type Positions = ReadonlyMap<string, number>;

export function pathKey(path: readonly string[]): string {
  return path.join('\0');
}

/** The line of the key, or of the closest table around it that is written down. */
export function lineOf(positions: Positions, path: readonly string[]): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const line = positions.get(pathKey(path.slice(0, length)));
    if (line !== undefined) return line;
  }
  return undefined;
}

export function scanPositions(text: string): Positions {
  return new Scan(text).document();
}

const escapes: Record<string, string> = {
  b: '\b',
  t: '\t',
  n: '\n',
  f: '\f',
  r: '\r',
  e: '\x1b',
  '"': '"',
  '\\': '\\',
};

class Scan {
  readonly #text: string;
  #at = 0;
  #line = 1;
  readonly #lines = new Map<string, number>();
  /** How many elements each array of tables has so far. */
  readonly #elements = new Map<string, number>();

  constructor(text: string) {
    this.#text = text;
  }

  document(): Positions {
    let table: string[] = [];
    for (this.#skip(); this.#at < this.#text.length; this.#skip()) {
      if (this.#text[this.#at] === '[') table = this.#header();
      else this.#assignment(table);
    }
    return this.#lines;
  }

  #note(path: readonly string[], line = this.#line): void {
    const key = pathKey(path);
    if (!this.#lines.has(key)) this.#lines.set(key, line);
  }

  #header(): string[] {
    const ofArray = this.#text[this.#at + 1] === '[';
    this.#at += ofArray ? 2 : 1;
    const keys = this.#key();
    this.#at += ofArray ? 2 : 1;
    const path: string[] = [];
    for (const [i, key] of keys.entries()) {
      path.push(key);
      this.#note(path);
      const joined = pathKey(path);
      const count = this.#elements.get(joined);
      if (ofArray && i === keys.length - 1) {
        this.#elements.set(joined, (count ?? 0) + 1);
        path.push(String(count ?? 0));
        this.#note(path);
      } else if (count !== undefined) {
        path.push(String(count - 1));
      }
    }
    return path;
  }

  #assignment(table: readonly string[]): void {
    const line = this.#line;
    const path = [...table];
    for (const key of this.#key()) {
      path.push(key);
      this.#note(path, line);
    }
    this.#at++; // the equals sign
    this.#value(path);
  }

  /** Dotted key up to, not including, `=` or `]`. */
  #key(): string[] {
    const keys: string[] = [];
    for (;;) {
      this.#blanks();
      const c = this.#text[this.#at];
      if (c === '=' || c === ']' || c === undefined) return keys;
      if (c === '.') this.#at++;
      else if (c === '"' || c === "'") keys.push(this.#string());
      else {
        const start = this.#at;
        while (/[\w-]/.test(this.#text[this.#at] ?? '')) this.#at++;
        if (this.#at === start) this.#at++; // unreachable after the parser, but never a loop without end
        keys.push(this.#text.slice(start, this.#at));
      }
    }
  }

  #value(path: readonly string[]): void {
    this.#blanks();
    const c = this.#text[this.#at];
    if (c === '"' || c === "'") this.#string();
    else if (c === '[') this.#array(path);
    else if (c === '{') this.#items('}', () => this.#assignment(path));
    else while (this.#at < this.#text.length && !/[,\]}\n#]/.test(this.#text[this.#at]!)) this.#at++;
  }

  /** An element is noted only where it has a line of its own: lists of half a million numbers on one line exist. */
  #array(path: readonly string[]): void {
    const line = this.#line;
    this.#items(']', (i) => {
      const c = this.#text[this.#at];
      if (this.#line === line && c !== '{' && c !== '[') return this.#value(path);
      const element = [...path, String(i)];
      this.#note(element);
      this.#value(element);
    });
  }

  #items(close: string, item: (i: number) => void): void {
    this.#at++;
    for (let i = 0; ; i++) {
      this.#skip();
      if (this.#at >= this.#text.length) return;
      if (this.#text[this.#at] === close) break;
      item(i);
      this.#skip();
      if (this.#text[this.#at] === ',') this.#at++;
    }
    this.#at++;
  }

  /** Any of the four string forms; returns a key's text (escapes of multi-line strings are of no use to a key and left as they are). */
  #string(): string {
    const quote = this.#text[this.#at]!;
    const literal = quote === "'";
    if (this.#text.startsWith(quote.repeat(3), this.#at)) {
      this.#at += 3;
      while (this.#at < this.#text.length && !this.#text.startsWith(quote.repeat(3), this.#at)) {
        if (this.#text[this.#at] === '\\' && !literal) this.#at++;
        if (this.#text[this.#at] === '\n') this.#line++;
        this.#at++;
      }
      this.#at += 3;
      while (this.#text[this.#at] === quote) this.#at++; // up to two quotes may stand right before the closing three
      return '';
    }
    let out = '';
    for (this.#at++; this.#at < this.#text.length && this.#text[this.#at] !== quote; this.#at++) {
      if (this.#text[this.#at] !== '\\' || literal) out += this.#text[this.#at];
      else out += this.#escape();
    }
    this.#at++;
    return out;
  }

  /** Leaves the cursor on the escape's last character. */
  #escape(): string {
    const c = this.#text[++this.#at]!;
    const digits = { x: 2, u: 4, U: 8 }[c];
    if (digits === undefined) return escapes[c] ?? c;
    const code = Number.parseInt(this.#text.slice(this.#at + 1, this.#at + 1 + digits), 16);
    this.#at += digits;
    return String.fromCodePoint(code);
  }

  #blanks(): void {
    while (this.#text[this.#at] === ' ' || this.#text[this.#at] === '\t') this.#at++;
  }

  /** White space, newlines and comments. */
  #skip(): void {
    for (; this.#at < this.#text.length; this.#at++) {
      const c = this.#text[this.#at];
      if (c === '\n') this.#line++;
      else if (c === '#') {
        const end = this.#text.indexOf('\n', this.#at);
        this.#at = (end === -1 ? this.#text.length : end) - 1;
      } else if (c !== ' ' && c !== '\t' && c !== '\r' && c !== '\ufeff') return;
    }
  }
}
