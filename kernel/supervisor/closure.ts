/**
 * What a plugin consists of: the files of its folder, and those outside that it reaches by imports which can be read off its text.
 *
 * Imports count when they are relative, static or with a literal name, and so does `new URL('./x.ts', import.meta.url)`, by which threads name their entry. Files
 * of the plugin's own folder, data as well as code, make the copy that a rollback starts (builds.ts); those that it shares with others (plugins/lib) only count
 * for what has changed. What the kernel offers, and what lies under node_modules, changes with the daemon. Tests are no part of a plugin.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';

export interface Closure {
  /** Hex; two closures with the same digest run the same code with the same manifest. */
  readonly digest: string;
  /** Absolute paths inside the plugin's folder. */
  readonly own: readonly string[];
  /** Absolute paths outside of it. */
  readonly shared: readonly string[];
  /** The newest change of any of them, milliseconds since the epoch. */
  readonly changedAt: number;
}

interface File {
  readonly stamp: string;
  readonly hash: string;
  readonly changedAt: number;
  /** Absolute paths: names cut out of a text would keep all of the text in memory. */
  readonly imports: readonly string[];
}

/** A folder with more than this is somebody's store of things; its code is still found by its imports. */
const maxFiles = 1000;

const importPatterns = [
  /\b(?:import|export)\s[^'"`;]*?from\s*['"](\.{1,2}\/[^'"]+)['"]/g,
  /\bimport\s*['"](\.{1,2}\/[^'"]+)['"]/g,
  /\bimport\(\s*['"](\.{1,2}\/[^'"]+)['"]/g,
  /\bnew URL\(\s*['"](\.{1,2}\/[^'"]+)['"]\s*,\s*import\.meta\.url/g,
];

export class ClosureReader {
  /** By path. A file that has not changed is not read again: a reload then costs a stat for each. */
  readonly #files = new Map<string, File>();

  /** @param named files that belong to it wherever they lie: the manifest, .proto files */
  async read(dir: string, named: readonly string[]): Promise<Closure> {
    const found = new Map<string, File | undefined>();
    let next = [...new Set([resolve(dir, 'index.ts'), ...named, ...(await filesIn(dir))])];
    while (next.length > 0) {
      const files = await Promise.all(next.map(async (path) => [path, await this.#file(path)] as const));
      for (const [path, file] of files) found.set(path, file);
      const imported = new Set(files.flatMap(([, file]) => file?.imports ?? []));
      next = [...imported].filter((path) => !found.has(path));
    }
    const hash = createHash('sha256');
    const own: string[] = [];
    const shared: string[] = [];
    let changedAt = 0;
    for (const [path, file] of [...found].sort(([a], [b]) => (a < b ? -1 : 1))) {
      // One that is missing is part of what there is: code that does not load is code that has changed.
      hash.update(`${relative(dir, path)}\0${file?.hash ?? 'missing'}\0`);
      if (file === undefined) continue;
      changedAt = Math.max(changedAt, file.changedAt);
      if (path.startsWith(dir + sep)) own.push(path);
      else shared.push(path);
    }
    return { digest: hash.digest('hex'), own, shared, changedAt };
  }

  async #file(path: string): Promise<File | undefined> {
    try {
      const { mtimeNs, ctimeNs, size, ino, mtimeMs, ctimeMs } = await stat(path, { bigint: true });
      const stamp = `${mtimeNs} ${ctimeNs} ${size} ${ino}`;
      const known = this.#files.get(path);
      if (known?.stamp === stamp) return known;
      const bytes = await readFile(path);
      const file = {
        stamp,
        hash: createHash('sha256').update(bytes).digest('hex'),
        changedAt: Math.max(Number(mtimeMs), Number(ctimeMs)),
        imports: /\.[cm]?[jt]s$/.test(path) ? importsOf(path, bytes.toString()) : [],
      };
      this.#files.set(path, file);
      return file;
    } catch {
      this.#files.delete(path);
      return undefined;
    }
  }
}

/** A module and what it imports, and so on: absolute paths. A file that is not there is in it too: that it appears is a change. */
export function modulesOf(entry: string): Set<string> {
  const found = new Set([entry]);
  for (const file of found) {
    let text: string;
    try {
      text = readFileSync(file, 'utf8');
    } catch {
      continue;
    }
    for (const path of importsOf(file, text)) found.add(path);
  }
  return found;
}

async function filesIn(dir: string): Promise<string[]> {
  const files: string[] = [];
  const dirs = [dir];
  for (let next = dirs.pop(); next !== undefined; next = dirs.pop()) {
    for (const entry of await readdir(next, { withFileTypes: true }).catch(() => [])) {
      if (entry.name.startsWith('.') || entry.name === 'node_modules' || /\.test\.[cm]?[jt]s$/.test(entry.name))
        continue;
      const path = join(next, entry.name);
      if (entry.isDirectory()) dirs.push(path);
      else if (entry.isFile()) files.push(path);
      if (files.length > maxFiles) return [];
    }
  }
  return files;
}

function importsOf(file: string, text: string): string[] {
  const dir = dirname(file);
  return importPatterns.flatMap((pattern) => [...text.matchAll(pattern)].map((match) => resolve(dir, match[1]!)));
}
