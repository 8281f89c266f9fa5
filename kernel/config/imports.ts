/** The root file, then what it imports, then what those import: breadth first, each file once, so that a cycle is just a file already read. */
import { readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MergedDocument } from './merge.ts';
import { toVersion3 } from './moves.ts';
import { type Problem, ProblemsError } from './problem.ts';
import { newestVersion, writtenVersion } from './schema.ts';
import { problemAt } from './table.ts';
import { readToml, type TomlDocument } from './toml.ts';

/** More is a glob that went astray; each file costs a millisecond or so of the start. */
const maxFiles = 1000;

export interface Loaded {
  readonly document: MergedDocument;
  /** As written in the root file. */
  readonly version: number;
  /** Absolute paths in the order they were merged, the root file first. */
  readonly files: readonly string[];
  readonly problems: Problem[];
  readonly warnings: Problem[];
}

/** @throws ProblemsError when the root file itself cannot be read; problems of imported files are collected. */
export function loadWithImports(rootFile: string): Loaded {
  const root = resolve(rootFile);
  const document = new MergedDocument(root);
  const problems: Problem[] = [];
  const files: string[] = [];
  const queue: { file: string; by?: { document: TomlDocument; entry: string } }[] = [{ file: root }];
  const seen = new Set([root]);
  let version = writtenVersion;
  for (const { file, by } of queue) {
    let read: TomlDocument;
    try {
      read = readToml(file);
    } catch (error) {
      if (!(error instanceof ProblemsError) || by === undefined) throw error;
      problems.push(
        ...error.problems.map((p) =>
          p.line === undefined ? problemAt(by.document, ['imports'], `import ${p.file}: ${p.message}`) : p,
        ),
      );
      continue;
    }
    files.push(file);
    // Others could write themselves a root shell into it.
    if ((read.mode & 0o002) !== 0)
      document.warnings.push({ file, message: `anyone may write this file (mode ${read.mode.toString(8)})` });
    const own = readVersion(read, by === undefined ? undefined : version, problems);
    if (own === undefined) continue;
    if (by === undefined) version = own;
    for (const entry of importEntries(read, problems)) {
      for (const imported of matching(resolve(dirname(file), entry))) {
        if (seen.has(imported)) continue;
        seen.add(imported);
        queue.push({ file: imported, by: { document: read, entry } });
      }
      if (queue.length > maxFiles) {
        problems.push(problemAt(read, ['imports'], `imports name more than ${maxFiles} files, the limit`));
        return { document, version, files, problems, warnings: document.warnings };
      }
    }
    delete read.table.imports;
    delete read.table.version;
    document.add(toVersion3(read, own));
  }
  return { document, version, files, problems, warnings: document.warnings };
}

/**
 * A file without a version is taken for version 1 by containerd 1.x. Only the names of plugins differ there, so a file that names none is taken as it is, and a
 * drop-in is what its root file is.
 */
export function readVersion(
  document: TomlDocument,
  rootVersion: number | undefined,
  problems: Problem[],
): number | undefined {
  const { table } = document;
  const fail = (message: string): undefined => void problems.push(problemAt(document, ['version'], message));
  const namesPlugins = ['plugins', 'disabled_plugins', 'required_plugins'].some((key) => Object.hasOwn(table, key));
  const written = Object.hasOwn(table, 'version') ? table.version : undefined;
  if (written !== undefined && typeof written !== 'bigint') return fail('version must be an integer');
  const version = written === undefined ? (rootVersion ?? (namesPlugins ? 1 : writtenVersion)) : Number(written);
  if (version > newestVersion)
    return fail(`version ${written} of the format is newer than this daemon, which knows 2 to ${newestVersion}`);
  if (version < 1) return fail(`version ${written}: the format's versions are 2 to ${newestVersion}`);
  if (version === 1) {
    const why = written === undefined ? 'no version, which means version 1' : 'version 1 of the format';
    return fail(
      `${why}, with its short names of plugins: convert it with "trouped config migrate --config ${document.file}"`,
    );
  }
  if (rootVersion !== undefined && version > rootVersion)
    return fail(`version ${version}, while the file that imports it has version ${rootVersion}`);
  return version;
}

function importEntries(document: TomlDocument, problems: Problem[]): string[] {
  const { imports } = document.table;
  if (imports === undefined) return [];
  if (Array.isArray(imports) && imports.every((entry) => typeof entry === 'string' && !entry.includes('\0')))
    return imports as string[];
  problems.push(problemAt(document, ['imports'], 'imports must be an array of strings'));
  return [];
}

/** Files that an absolute path with `*`, `?` and `[…]` stands for, sorted; a path without them as it is, there or not. */
function matching(pattern: string): string[] {
  if (!/[*?[]/.test(pattern)) return [pattern];
  let found = ['/'];
  for (const part of pattern.split('/').filter((p) => p !== '')) {
    if (!/[*?[]/.test(part)) found = found.map((dir) => join(dir, part));
    else {
      const expression = globExpression(part);
      found = found.flatMap((dir) =>
        entriesOf(dir)
          .filter((name) => expression.test(name))
          .map((name) => join(dir, name)),
      );
    }
  }
  return found.sort();
}

function entriesOf(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return []; // as a shell does: a glob through what is no directory matches nothing
  }
}

function globExpression(part: string): RegExp {
  const source = part.replace(
    /\[(\^|!)?([^\]]+)\]|[*?]|[^*?[]+|\[/g,
    (token, not: string | undefined, set: string | undefined) => {
      if (set !== undefined) return `[${not === undefined ? '' : '^'}${set.replace(/[\\[\]^]/g, '\\$&')}]`;
      return token === '*' ? '.*' : token === '?' ? '.' : token.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
    },
  );
  try {
    return new RegExp(`^${source}$`, 's');
  } catch {
    return /^(?!)/; // a range like [z-a]
  }
}
