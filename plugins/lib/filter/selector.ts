/** The text of a filter → its selectors. The grammar is drawn in filter.ts; error texts and places are containerd's. */
import { Failure } from 'troupe/plugin';
import { quote } from '../identifier/quote.ts';
import { unquote } from './unquote.ts';

export interface Selector {
  readonly fieldpath: readonly string[];
  readonly operator: '' | '==' | '!=' | '~=';
  readonly value: string;
}

type TokenKind = 'end' | 'field' | 'value' | 'quoted' | 'separator' | 'operator' | 'illegal';

interface Token {
  readonly kind: TokenKind;
  /** Index of its first character in the input. */
  readonly at: number;
  readonly text: string;
  readonly problem?: string;
}

/** @throws Failure InvalidArgument naming the place: `filters: parse error: [id >|!|< a]: unsupported operator "!": …`. */
export function parseSelectors(input: string): Selector[] {
  return new Parser(input).selectors();
}

class Parser {
  readonly #input: string;
  readonly #scanner: Scanner;

  constructor(input: string) {
    this.#input = input;
    this.#scanner = new Scanner(input);
  }

  selectors(): Selector[] {
    const result = [this.#selector()];
    for (;;) {
      const token = this.#scanner.next('field');
      if (token.kind === 'end') return result;
      if (token.kind !== 'separator' || token.text !== ',') throw this.#unexpected(token);
      result.push(this.#selector());
    }
  }

  #selector(): Selector {
    const fieldpath = this.#fieldpath();
    const after = this.#scanner.peekCharacter();
    if (after === '' || after === ',') return { fieldpath, operator: '', value: '' };
    this.#scanner.skipSpace();
    const token = this.#scanner.next('operator');
    if (token.kind === 'illegal') throw this.#failure(token.at, token.problem!);
    if (token.kind !== 'operator') throw this.#failure(token.at, 'expected an operator ("=="|"!="|"~=")');
    if (token.text !== '==' && token.text !== '!=' && token.text !== '~=')
      throw this.#failure(token.at, `unsupported operator ${quote(token.text)}`);
    return { fieldpath, operator: token.text, value: this.#value(token.text === '~=') };
  }

  #fieldpath(): string[] {
    const result = [this.#field()];
    while (this.#scanner.peekCharacter() === '.') {
      this.#scanner.next('field');
      result.push(this.#field());
    }
    return result;
  }

  #field(): string {
    this.#scanner.skipSpace();
    const token = this.#scanner.next('field');
    if (token.kind === 'field') return token.text;
    if (token.kind === 'quoted') return this.#unquote(token, false);
    if (token.kind === 'illegal') throw this.#failure(token.at, token.problem!);
    throw this.#failure(token.at, 'expected field or quoted');
  }

  #value(alternatives: boolean): string {
    this.#scanner.skipSpace();
    const token = this.#scanner.next('value');
    if (token.kind === 'value') return token.text;
    if (token.kind === 'quoted') return this.#unquote(token, alternatives);
    if (token.kind === 'illegal') throw this.#failure(token.at, token.problem!);
    throw this.#failure(token.at, 'expected value or quoted');
  }

  #unquote(token: Token, alternatives: boolean): string {
    if (token.text[0] !== '"' && !alternatives) throw this.#failure(token.at, 'invalid quote encountered');
    const text = unquote(token.text);
    if (text === undefined) throw this.#failure(token.at, 'illegal escape sequence');
    return text;
  }

  #unexpected(token: Token): Failure {
    return this.#failure(token.at, token.problem ?? `unexpected input: ${token.text}`);
  }

  #failure(at: number, problem: string): Failure {
    const character = String.fromCodePoint(this.#input.codePointAt(at) ?? 0);
    const place =
      at < this.#input.length
        ? `${shorten(this.#input.slice(0, at), 'start')} >|${character}|< ${shorten(this.#input.slice(at + character.length), 'end')}`
        : shorten(this.#input, 'start');
    return new Failure(
      'InvalidArgument',
      `filters: parse error: [${place}]: ${problem}: invalid argument: invalid argument`,
    );
  }
}

// The message travels in a header, and a filter may be large.
function shorten(text: string, cut: 'start' | 'end'): string {
  if (text.length <= 256) return text;
  return cut === 'start' ? `…${text.slice(-256)}` : `${text.slice(0, 256)}…`;
}

const fieldCharacter = /[A-Za-z0-9_]/;
const operatorCharacter = /[=!~]/;
const separatorCharacter = /[,.]/;
const quoteCharacter = /["/|]/;
const space = /\s/;

class Scanner {
  readonly #input: string;
  #at = 0;

  constructor(input: string) {
    this.#input = input;
  }

  peekCharacter(): string {
    return this.#input[this.#at] ?? '';
  }

  /** Space may stand in front of a field, an operator and a value, and nowhere else. */
  skipSpace(): void {
    while (space.test(this.peekCharacter())) this.#at += 1;
  }

  /** `value`: what may follow an operator, where all but a comma, a space, and a quote in front, is text. */
  next(expect: 'field' | 'operator' | 'value'): Token {
    const at = this.#at;
    const first = this.#input[at];
    if (first === undefined) return { kind: 'end', at, text: '' };
    if (quoteCharacter.test(first)) return this.#quoted(first);
    if (expect === 'value' && first !== ',' && !space.test(first))
      return this.#run('value', (c) => c !== ',' && !space.test(c));
    if (separatorCharacter.test(first)) return this.#single('separator');
    if (operatorCharacter.test(first)) return this.#run('operator', (c) => operatorCharacter.test(c));
    if (fieldCharacter.test(first)) return this.#run('field', (c) => fieldCharacter.test(c));
    return this.#single('value');
  }

  #single(kind: TokenKind): Token {
    const at = this.#at;
    const text = String.fromCodePoint(this.#input.codePointAt(at)!);
    this.#at += text.length;
    return { kind, at, text };
  }

  #run(kind: TokenKind, belongs: (character: string) => boolean): Token {
    const at = this.#at;
    while (this.#at < this.#input.length && belongs(this.#input[this.#at]!)) this.#at += 1;
    return { kind, at, text: this.#input.slice(at, this.#at) };
  }

  #quoted(mark: string): Token {
    const at = this.#at;
    for (let index = at + 1; index < this.#input.length; index++) {
      const character = this.#input[index];
      if (character === '\\') index += 1;
      else if (character === mark) {
        this.#at = index + 1;
        return { kind: 'quoted', at, text: this.#input.slice(at, this.#at) };
      }
    }
    this.#at = this.#input.length;
    return { kind: 'illegal', at, text: mark, problem: 'quoted literal not terminated' };
  }
}
