/**
 * A root file and its drop-ins as one document, by containerd's rules: scalars of a later file win unless they are zero, arrays are joined without
 * repeats, tables are merged key by key, and each entry of timeouts, proxy_plugins and stream_processors is replaced whole.
 */
import { pathKey } from './positions.ts';
import type { Problem } from './problem.ts';
import { problemAt, renderPath } from './table.ts';
import { isTable, type Place, type TomlDocument, type TomlTable } from './toml.ts';

const replacedWhole = new Set(['timeouts', 'proxy_plugins', 'stream_processors']);

export class MergedDocument implements TomlDocument {
  readonly file: string;
  readonly table: TomlTable = Object.create(null);
  readonly mode = 0;
  readonly warnings: Problem[] = [];
  /** Path → the document that said so last; what lies below a path belongs to the same document unless it is listed itself. */
  readonly #owners = new Map<string, TomlDocument>();

  constructor(file: string) {
    this.file = file;
  }

  add(document: TomlDocument): void {
    this.#merge(document, [], this.table, document.table);
  }

  locate(path: readonly string[]): Place | undefined {
    for (let length = path.length; length > 0; length--) {
      const owner = this.#owners.get(pathKey(path.slice(0, length)));
      if (owner !== undefined) return owner.locate(path);
    }
    return undefined;
  }

  #merge(document: TomlDocument, path: readonly string[], into: TomlTable, from: TomlTable): void {
    const whole = path.length === 1 && replacedWhole.has(path[0]!);
    for (const [key, value] of Object.entries(from)) {
      const at = [...path, key];
      const present = Object.hasOwn(into, key) ? into[key] : undefined;
      if (isTable(present) && isTable(value) && !whole) {
        this.#merge(document, at, present, value);
        continue;
      }
      if (present !== undefined && !whole && isZero(value)) {
        // Silence would be the worst of all: somebody wrote `x = false` in a drop-in and means it.
        if (!isZero(present)) {
          const message = `${renderPath(at)} = ${shown(value)} does not undo what an earlier file says: zero values of a drop-in are ignored`;
          this.warnings.push(problemAt(document, at, message));
        }
        continue;
      }
      into[key] = Array.isArray(present) && Array.isArray(value) ? joined(present, value) : value;
      this.#owners.set(pathKey(at), document);
    }
  }
}

function isZero(value: unknown): boolean {
  return value === '' || value === false || value === 0 || value === 0n || (Array.isArray(value) && value.length === 0);
}

function shown(value: unknown): string {
  return Array.isArray(value) ? '[]' : value === '' ? '""' : String(value);
}

function joined(first: readonly unknown[], second: readonly unknown[]): unknown[] {
  const identity = (item: unknown) => JSON.stringify(item, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)) ?? '';
  const seen = new Set<string>();
  return [...first, ...second].filter((item) => !seen.has(identity(item)) && seen.add(identity(item)));
}
