/** The manifests of folders: where plugins lie, and what is said of a folder that ought to hold one and does not. */
import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Problem, ProblemsError } from '../config/problem.ts';
import { readToml } from '../config/toml.ts';
import { isPluginId, loadManifest, type Manifest } from './manifest.ts';

/** A folder that ought to hold a plugin, and what is wrong with its manifest. */
export interface BrokenFolder {
  readonly id: string;
  readonly dir: string;
  readonly problems: readonly Problem[];
}

export interface Manifests {
  readonly manifests: Manifest[];
  readonly problems: Problem[];
  /** Where `problems` come from. */
  readonly broken: BrokenFolder[];
}

/**
 * The manifests of all folders in `dirs` that hold a `plugin.toml`, by folder name; `lib` and dot folders are not looked at. A bad
 * manifest is left out and its problems returned, together with those of all others.
 */
export function loadManifests(...dirs: string[]): Manifests {
  const manifests: Manifest[] = [];
  const broken: BrokenFolder[] = [];
  for (const dir of dirs) {
    try {
      for (const folder of pluginFolders(dir)) {
        try {
          manifests.push(loadManifest(folder));
        } catch (error) {
          if (!(error instanceof ProblemsError)) throw error;
          broken.push({ id: idOf(folder), dir: folder, problems: error.problems });
        }
      }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      broken.push({ id: idOf(dir), dir, problems: [{ message: `plugin directory ${dir}: ${code}` }] });
    }
  }
  return { manifests, broken, problems: broken.flatMap(({ problems }) => problems) };
}

/** A directory of plugins, or a plugin itself. Code without a manifest was meant to be one. */
function pluginFolders(dir: string): string[] {
  if (has(dir, 'plugin.toml') || has(dir, 'index.ts')) return [dir];
  return readdirSync(dir)
    .filter((name) => !name.startsWith('.') && name !== 'lib')
    .sort()
    .map((name) => join(dir, name))
    .filter((path) => has(path, 'plugin.toml') || has(path, 'index.ts'));
}

function has(dir: string, file: string): boolean {
  return statSync(join(dir, file), { throwIfNoEntry: false }) !== undefined;
}

/** What a manifest that is no good says of itself, or what its folder is called. */
function idOf(dir: string): string {
  try {
    const { id } = readToml(join(dir, 'plugin.toml')).table;
    if (typeof id === 'string' && isPluginId(id)) return id;
  } catch {
    // Its problems are told already.
  }
  const name = basename(dir)
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return `troupe.unreadable.v1.${name || 'folder'}`;
}
