/**
 * Takes a parsed table apart by the keys that are known, collecting what does not fit with its file and line. One reader per table;
 * `rest()` at the end tells which keys nobody asked for.
 */
import { suggestion } from './nearest.ts';
import type { Problem } from './problem.ts';
import { parseDuration, parseSize } from './quantity.ts';
import { isTable, type TomlDocument, type TomlTable } from './toml.ts';

/** `grpc.address`, `plugins."io.containerd.gc.v1.scheduler".pause_threshold`: a key path as one would write it. */
export function renderPath(path: readonly string[]): string {
  return path.map((part) => (/^[\w-]+$/.test(part) ? part : JSON.stringify(part))).join('.');
}

export function problemAt(document: TomlDocument, path: readonly string[], message: string): Problem {
  return { ...(document.locate(path) ?? { file: document.file }), message };
}

function kindOf(value: unknown): string {
  if (typeof value === 'bigint') return 'an integer';
  if (typeof value === 'number') return 'a float';
  if (typeof value === 'boolean') return 'a boolean';
  if (typeof value === 'string') return 'a string';
  if (value instanceof Date) return 'a date';
  return Array.isArray(value) ? 'an array' : 'a table';
}

export class TableReader {
  readonly document: TomlDocument;
  readonly table: TomlTable;
  readonly path: readonly string[];
  readonly problems: Problem[];
  readonly #known = new Set<string>();

  constructor(
    document: TomlDocument,
    problems: Problem[],
    table: TomlTable = document.table,
    path: readonly string[] = [],
  ) {
    this.document = document;
    this.table = table;
    this.path = path;
    this.problems = problems;
  }

  has(key: string): boolean {
    return Object.hasOwn(this.table, key);
  }

  problem(key: string | undefined, message: string): void {
    this.problems.push(problemAt(this.document, key === undefined ? this.path : [...this.path, key], message));
  }

  #name(key: string): string {
    return renderPath([...this.path, key]);
  }

  /** The raw value, noted as known. */
  take(key: string): unknown {
    this.#known.add(key);
    return this.has(key) ? this.table[key] : undefined;
  }

  #typed<T>(key: string, wanted: string, accept: (value: unknown) => T | undefined): T | undefined {
    const value = this.take(key);
    if (value === undefined) return undefined;
    const accepted = accept(value);
    if (accepted === undefined) this.problem(key, `${this.#name(key)} must be ${wanted}, not ${this.#shown(value)}`);
    return accepted;
  }

  #shown(value: unknown): string {
    if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
    if (typeof value === 'bigint' || typeof value === 'number') return String(value);
    return kindOf(value);
  }

  string(key: string): string | undefined {
    return this.#typed(key, 'a string', (v) => (typeof v === 'string' && !v.includes('\0') ? v : undefined));
  }

  oneOf<T extends string>(key: string, choices: readonly T[]): T | undefined {
    return this.#typed(key, `one of ${choices.filter((choice) => choice !== '').join(', ')}`, (v) =>
      choices.find((choice) => choice === v),
    );
  }

  boolean(key: string): boolean | undefined {
    return this.#typed(key, 'true or false', (v) => (typeof v === 'boolean' ? v : undefined));
  }

  /** Within [min, max], both safe integers: what JavaScript would round is refused and named. */
  integer(key: string, min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER): number | undefined {
    const wanted =
      max === Number.MAX_SAFE_INTEGER
        ? min === Number.MIN_SAFE_INTEGER
          ? 'an integer'
          : `an integer from ${min}`
        : `an integer from ${min} to ${max}`;
    return this.#typed(key, wanted, (v) =>
      typeof v === 'bigint' && v >= BigInt(min) && v <= BigInt(max) ? Number(v) : undefined,
    );
  }

  float(key: string): number | undefined {
    return this.#typed(key, 'a number', (v) =>
      typeof v === 'bigint' ? Number(v) : typeof v === 'number' && Number.isFinite(v) ? v : undefined,
    );
  }

  /** Milliseconds. */
  duration(key: string): number | undefined {
    return this.#typed(key, 'a duration such as "10s", "1m30s" or "0", not negative', (v) => {
      const ms = typeof v === 'string' ? parseDuration(v) : undefined;
      return ms !== undefined && ms >= 0 ? ms : undefined;
    });
  }

  /** Bytes. */
  size(key: string): number | undefined {
    return this.#typed(key, 'a size in bytes or such as "16MiB"', (v) => {
      if (typeof v === 'bigint') return v >= 0n && v <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(v) : undefined;
      return typeof v === 'string' ? parseSize(v) : undefined;
    });
  }

  strings(key: string): string[] | undefined {
    return this.#typed(key, 'an array of strings', (v) =>
      Array.isArray(v) && v.every((item) => typeof item === 'string') ? (v as string[]) : undefined,
    );
  }

  integers(key: string): number[] | undefined {
    return this.#typed(key, 'an array of integers', (v) =>
      Array.isArray(v) && v.every((item) => typeof item === 'bigint' && item >= 0n && item < 2n ** 31n)
        ? v.map(Number)
        : undefined,
    );
  }

  tables(key: string): TomlTable[] | undefined {
    return this.#typed(key, 'an array of tables', (v) => (Array.isArray(v) && v.every(isTable) ? v : undefined));
  }

  /** A reader for the table at `key`; undefined when there is none. */
  child(key: string): TableReader | undefined {
    const table = this.#typed(key, 'a table', (v) => (isTable(v) ? v : undefined));
    return table === undefined ? undefined : new TableReader(this.document, this.problems, table, [...this.path, key]);
  }

  /** Every table inside this one, by key. */
  children(): [string, TableReader][] {
    return Object.keys(this.table).flatMap((key) => {
      const reader = this.child(key);
      return reader === undefined ? [] : [[key, reader] as [string, TableReader]];
    });
  }

  /** One problem for each key that nobody asked for, with the known key that was probably meant. Into `problems`, or into `into`. */
  rest(into: Problem[] = this.problems, note = ''): void {
    for (const key of Object.keys(this.table)) {
      if (this.#known.has(key)) continue;
      const message = `unknown key ${this.#name(key)}${suggestion(key, this.#known)}${note}`;
      into.push(problemAt(this.document, [...this.path, key], message));
    }
  }
}
