/**
 * JSON that means one thing only. What a document says decides what is run, and several programs read it: one takes the first of two equal keys, another
 * the last, a third does not tell `layers` from `Layers`. So a document that readers could disagree about is refused before anybody reads it.
 */
import { Failure } from 'troupe/plugin';

export interface StrictOptions {
  /** For messages: `manifest sha256:…` */
  readonly what: string;
  /** Most bytes. */
  readonly limit: number;
  /** Keys that are read at a place (`''` the top, `layers.platform` the platform of each layer): other spellings of them are refused. */
  readonly known: Readonly<Record<string, readonly string[]>>;
}

const deepest = 64;
const space = /[ \t\n\r]*/y;
const text = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*"/y;
const scalar = /(?:true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)/y;

/** @throws Failure InvalidArgument saying what is wrong */
export function parseStrict(bytes: Uint8Array, options: StrictOptions): unknown {
  const refuse = (problem: string): Failure =>
    new Failure('InvalidArgument', `${options.what}: ${problem}: invalid argument`);
  if (bytes.length > options.limit) throw refuse(`has ${bytes.length} bytes, the limit is ${options.limit}`);
  let source: string;
  try {
    source = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw refuse('is not UTF-8');
  }
  new Scan(source, options, refuse).document();
  return JSON.parse(source);
}

class Scan {
  readonly #source: string;
  readonly #known: StrictOptions['known'];
  readonly #refuse: (problem: string) => Failure;
  #at = 0;

  constructor(source: string, options: StrictOptions, refuse: (problem: string) => Failure) {
    this.#source = source;
    this.#known = options.known;
    this.#refuse = refuse;
  }

  document(): void {
    this.#value('', 0);
    this.#match(space);
    if (this.#at < this.#source.length) throw this.#broken();
  }

  #value(place: string, depth: number): void {
    this.#match(space);
    const first = this.#source[this.#at];
    if (first === '{') this.#object(place, depth + 1);
    else if (first === '[') this.#array(place, depth + 1);
    else if (this.#match(first === '"' ? text : scalar) === undefined) throw this.#broken();
  }

  #object(place: string, depth: number): void {
    if (depth > deepest) throw this.#refuse(`is nested deeper than ${deepest}`);
    const known = Object.hasOwn(this.#known, place) ? this.#known[place]! : [];
    const seen = new Set<string>();
    this.#at++;
    this.#match(space);
    if (this.#take('}')) return;
    do {
      this.#match(space);
      const written = this.#match(text);
      if (written === undefined) throw this.#broken();
      const key = JSON.parse(written) as string;
      if (seen.has(key)) throw this.#refuse(`has the key ${show(key)} twice`);
      seen.add(key);
      const meant = known.find((each) => each !== key && each.toLowerCase() === key.toLowerCase());
      if (meant !== undefined) throw this.#refuse(`has the key ${show(key)}, which some read as ${show(meant)}`);
      this.#match(space);
      if (!this.#take(':')) throw this.#broken();
      this.#value(place === '' ? key : `${place}.${key}`, depth);
      this.#match(space);
    } while (this.#take(','));
    if (!this.#take('}')) throw this.#broken();
  }

  #array(place: string, depth: number): void {
    if (depth > deepest) throw this.#refuse(`is nested deeper than ${deepest}`);
    this.#at++;
    this.#match(space);
    if (this.#take(']')) return;
    do {
      this.#value(place, depth);
      this.#match(space);
    } while (this.#take(','));
    if (!this.#take(']')) throw this.#broken();
  }

  #take(character: string): boolean {
    if (this.#source[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #broken(): Failure {
    return this.#refuse(`is not JSON at character ${this.#at}`);
  }
}

function show(key: string): string {
  return JSON.stringify(key.length > 100 ? `${key.slice(0, 100)}…` : key);
}
