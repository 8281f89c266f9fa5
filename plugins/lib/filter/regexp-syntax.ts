/**
 * RE2's syntax (https://github.com/google/re2/wiki/Syntax), as Go's regexp.Compile takes it → a tree. What RE2 refuses is refused here too: back
 * references, look-around, repetitions over 1000. Whether a match is greedy does not matter to a filter, so `*?` is `*`.
 */
export type Node =
  | { readonly kind: 'empty' }
  | { readonly kind: 'set'; readonly has: (character: string) => boolean; readonly literal?: string }
  | { readonly kind: 'assert'; readonly assertion: Assertion }
  | { readonly kind: 'sequence'; readonly items: readonly Node[] }
  | { readonly kind: 'choice'; readonly items: readonly Node[] }
  | { readonly kind: 'repeat'; readonly item: Node; readonly min: number; readonly max: number };

export type Assertion = 'text start' | 'text end' | 'line start' | 'line end' | 'word border' | 'no word border';

interface Flags {
  /** i */ readonly fold: boolean;
  /** m */ readonly lines: boolean;
  /** s */ readonly dot: boolean;
}

const maxRepeat = 1000;
const maxDepth = 200;

// Go's \s has no \v, and its \d and \w are ASCII.
const perl: { readonly [letter: string]: string } = { d: '0-9', w: '0-9A-Za-z_', s: '\\t\\n\\f\\r ' };

const posix: { readonly [name: string]: string } = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  ascii: '\\x00-\\x7f',
  blank: '\\t ',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`\\{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
};

const controls: { readonly [letter: string]: string } = { a: '\u0007', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** @throws SyntaxError saying what is wrong. */
export function parseRegexp(source: string): Node {
  return new Parser(source).parse();
}

class Parser {
  readonly #characters: string[];
  #at = 0;
  #depth = 0;
  #flags: Flags = { fold: false, lines: false, dot: false };

  constructor(source: string) {
    this.#characters = Array.from(source);
  }

  parse(): Node {
    const node = this.#choice();
    if (this.#at < this.#characters.length) throw new SyntaxError('unexpected )');
    return node;
  }

  #peek(): string | undefined {
    return this.#characters[this.#at];
  }

  #take(): string {
    const character = this.#characters[this.#at];
    if (character === undefined) throw new SyntaxError('unexpected end');
    this.#at += 1;
    return character;
  }

  #accept(text: string): boolean {
    for (let index = 0; index < text.length; index++)
      if (this.#characters[this.#at + index] !== text[index]) return false;
    this.#at += text.length;
    return true;
  }

  #until(end: string): string {
    let text = '';
    while (!this.#accept(end)) text += this.#take();
    return text;
  }

  #choice(): Node {
    const items: Node[] = [this.#sequence()];
    while (this.#accept('|')) items.push(this.#sequence());
    return items.length === 1 ? items[0]! : { kind: 'choice', items };
  }

  #sequence(): Node {
    const items: Node[] = [];
    for (;;) {
      const next = this.#peek();
      if (next === undefined || next === '|' || next === ')') break;
      if (this.#accept('\\Q')) {
        // Runs to the end when \E is not there.
        while (this.#peek() !== undefined && !this.#accept('\\E')) {
          const literal = this.#literal(this.#take());
          const last = this.#characters[this.#at] === '\\' && this.#characters[this.#at + 1] === 'E';
          if (last) this.#at += 2;
          // A repetition after \E is of the last character.
          items.push(last ? this.#repeated(literal) : literal);
          if (last) break;
        }
        continue;
      }
      const atom = this.#atom();
      if (atom !== undefined) items.push(this.#repeated(atom));
    }
    return items.length === 1 ? items[0]! : items.length === 0 ? { kind: 'empty' } : { kind: 'sequence', items };
  }

  #repeated(item: Node): Node {
    const bounds = this.#bounds();
    if (bounds === undefined) return item;
    if (bounds.max < bounds.min || bounds.min > maxRepeat || (bounds.max > maxRepeat && bounds.max !== Infinity))
      throw new SyntaxError('invalid repeat count');
    this.#accept('?');
    if (this.#bounds() !== undefined) throw new SyntaxError('invalid nested repetition operator');
    return { kind: 'repeat', item, min: bounds.min, max: bounds.max };
  }

  #bounds(): { min: number; max: number } | undefined {
    if (this.#accept('*')) return { min: 0, max: Infinity };
    if (this.#accept('+')) return { min: 1, max: Infinity };
    if (this.#accept('?')) return { min: 0, max: 1 };
    if (this.#peek() !== '{') return undefined;
    const match = /^\{(\d{1,9})(,(\d{0,9}))?\}/.exec(this.#characters.slice(this.#at, this.#at + 22).join(''));
    // A brace that begins no repetition stands for itself.
    if (match === null) return undefined;
    this.#at += match[0].length;
    const min = Number(match[1]);
    return { min, max: match[2] === undefined ? min : match[3] === '' ? Infinity : Number(match[3]) };
  }

  /** Undefined for a group that only sets flags. */
  #atom(): Node | undefined {
    const character = this.#take();
    switch (character) {
      case '(':
        return this.#group();
      case '[':
        return this.#bracket();
      case '.':
        return this.#flags.dot
          ? { kind: 'set', has: () => true }
          : { kind: 'set', has: (candidate) => candidate !== '\n' };
      case '^':
        return { kind: 'assert', assertion: this.#flags.lines ? 'line start' : 'text start' };
      case '$':
        return { kind: 'assert', assertion: this.#flags.lines ? 'line end' : 'text end' };
      case '*':
      case '+':
      case '?':
        throw new SyntaxError(`missing argument to repetition operator: ${character}`);
      case '\\':
        return this.#escape();
      default:
        return this.#literal(character);
    }
  }

  #group(): Node | undefined {
    const outer = this.#flags;
    if (this.#accept('?')) {
      if (this.#accept('P<') || this.#accept('<')) {
        if (!/^[A-Za-z0-9_]+$/.test(this.#until('>'))) throw new SyntaxError('invalid or unsupported group (?<');
      } else {
        const flags = this.#until(this.#flagsEnd());
        this.#flags = applyFlags(outer, flags);
        if (this.#characters[this.#at - 1] === ')') return undefined;
      }
    }
    this.#depth += 1;
    if (this.#depth > maxDepth) throw new SyntaxError('expression nests too deeply');
    const node = this.#choice();
    if (!this.#accept(')')) throw new SyntaxError('missing closing )');
    this.#depth -= 1;
    // Flags set inside a group end with it.
    this.#flags = outer;
    return node;
  }

  #flagsEnd(): string {
    for (let at = this.#at; at < this.#characters.length; at++) {
      const character = this.#characters[at]!;
      if (character === ':' || character === ')') return character;
      if (!/[imsU-]/.test(character)) break;
    }
    throw new SyntaxError('invalid or unsupported group (?');
  }

  #escape(): Node {
    const character = this.#take();
    switch (character) {
      case 'A':
        return { kind: 'assert', assertion: 'text start' };
      case 'z':
        return { kind: 'assert', assertion: 'text end' };
      case 'b':
        return { kind: 'assert', assertion: 'word border' };
      case 'B':
        return { kind: 'assert', assertion: 'no word border' };
    }
    const set = this.#classEscape(character);
    if (set !== undefined) return this.#set(set, false);
    return this.#literal(this.#characterEscape(character));
  }

  /** `\d \D \pL \p{Greek} \P…` as members of a JavaScript class; undefined for an escaped character. */
  #classEscape(letter: string): string | undefined {
    const lower = letter.toLowerCase();
    if (perl[lower] !== undefined) return letter === lower ? perl[lower] : `[^${perl[lower]}]`;
    if (lower !== 'p') return undefined;
    let name = this.#take();
    if (name === '{') name = this.#until('}');
    let negated = letter === 'P';
    if (name.startsWith('^')) {
      negated = !negated;
      name = name.slice(1);
    }
    if (name === 'Any') return negated ? '[^\\s\\S]' : '\\s\\S';
    if (!/^[A-Za-z_]+$/.test(name)) throw new SyntaxError('invalid character class range');
    // One or two letters are a general category, the rest scripts.
    const property = name.length <= 2 ? name : `Script=${name}`;
    return negated ? `\\P{${property}}` : `\\p{${property}}`;
  }

  #characterEscape(character: string): string {
    if (controls[character] !== undefined) return controls[character];
    if (character === 'x') {
      const digits = this.#accept('{') ? this.#until('}') : this.#take() + this.#take();
      const code = /^[0-9A-Fa-f]{1,8}$/.test(digits) ? Number.parseInt(digits, 16) : Infinity;
      if (code > 0x10_ffff) throw new SyntaxError('invalid escape sequence \\x');
      return String.fromCodePoint(code);
    }
    // \1 to \7 alone would be a back reference; with another octal digit, and after \0, a character.
    if (/[0-7]/.test(character)) {
      let octal = character;
      while (octal.length < 3 && /[0-7]/.test(this.#peek() ?? '')) octal += this.#take();
      if (character !== '0' && octal.length === 1) throw new SyntaxError(`invalid escape sequence \\${character}`);
      return String.fromCodePoint(Number.parseInt(octal, 8));
    }
    if (/[0-9A-Za-z]/.test(character) || character.codePointAt(0)! > 0x7f)
      throw new SyntaxError(`invalid escape sequence \\${character}`);
    return character;
  }

  #bracket(): Node {
    const negated = this.#accept('^');
    let members = '';
    for (let first = true; first || this.#peek() !== ']'; first = false) {
      if (this.#accept('[:')) {
        const complement = this.#accept('^');
        const name = posix[this.#until(':]')];
        if (name === undefined) throw new SyntaxError('invalid character class range');
        members += complement ? `[^${name}]` : name;
        continue;
      }
      const low = this.#member();
      if (low.set !== undefined) {
        members += low.set;
        continue;
      }
      if (this.#peek() !== '-' || this.#characters[this.#at + 1] === ']') {
        members += escapeMember(low.character);
        continue;
      }
      this.#take();
      const high = this.#member();
      if (high.set !== undefined || high.character.codePointAt(0)! < low.character.codePointAt(0)!)
        throw new SyntaxError('invalid character class range');
      members += `${escapeMember(low.character)}-${escapeMember(high.character)}`;
    }
    this.#take();
    return this.#set(members, negated);
  }

  #member(): { character: string; set?: string } {
    const character = this.#take();
    if (character !== '\\') return { character };
    const letter = this.#take();
    const set = this.#classEscape(letter);
    return set === undefined ? { character: this.#characterEscape(letter) } : { character: '', set };
  }

  // One character against one class: JavaScript's own engine, which cannot backtrack here. The v flag gives nested classes.
  #set(members: string, negated: boolean): Node {
    const inside = new RegExp(`^[${members}]$`, this.#flags.fold ? 'vi' : 'v');
    return { kind: 'set', has: (character) => inside.test(character) !== negated };
  }

  #literal(character: string): Node {
    if (!this.#flags.fold) return { kind: 'set', has: (candidate) => candidate === character, literal: character };
    return this.#set(escapeMember(character), false);
  }
}

function applyFlags(flags: Flags, text: string): Flags {
  const match = /^([imsU]*)(-[imsU]+)?$/.exec(text);
  if (match === null) throw new SyntaxError('invalid or unsupported group (?');
  const value = (letter: string, before: boolean) =>
    match[2]?.includes(letter) ? false : match[1]!.includes(letter) ? true : before;
  return { fold: value('i', flags.fold), lines: value('m', flags.lines), dot: value('s', flags.dot) };
}

function escapeMember(character: string): string {
  return `\\u{${character.codePointAt(0)!.toString(16)}}`;
}
