/**
 * Copies of builds that have served, so that they can be started again when the files that they were started from are not what they were: after a reload that
 * turns out badly, or a crash in the middle of somebody's editing.
 *
 *     <state>/troupe.kernel.v1.kernel/
 *       node_modules              → the libraries that the daemon uses
 *       builds/
 *         node_modules/troupe     → the daemon itself, for `troupe/…`
 *         <plugin id>/<digest>/
 *           lib                   → what the plugin reaches outside its folder, at the same place beside it
 *           <folder>/…            the files of the plugin's own folder, and → its node_modules
 *
 * Modules that are reached over the links have their own names again, so they are loaded once in a worker whichever way they are reached.
 */
import { copyFile, lstat, mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Manifest } from '../plan/index.ts';
import { type Closure, ClosureReader } from './closure.ts';

const checkout = fileURLToPath(new URL('../../', import.meta.url));

/** Code, manifest and config that a generation was started with. */
export interface Build {
  readonly manifest: Manifest;
  readonly config: Readonly<Record<string, unknown>>;
  /** Undefined when it is not known what exactly was loaded. */
  readonly digest: string | undefined;
  /** Folder that it is started from: the plugin's, or the copy. */
  readonly dir: string;
  /** Folder of its copy; undefined when there is none. */
  readonly copy: string | undefined;
}

/** What lies in the plugin's folder, whatever that is. */
export function freshBuild(manifest: Manifest, config: Readonly<Record<string, unknown>>): Build {
  return { manifest, config, digest: undefined, dir: manifest.dir, copy: undefined };
}

export class Builds {
  readonly #base: string;
  readonly #reader = new ClosureReader();
  #prepared: Promise<void> | undefined;

  /** @param state the daemon's state directory */
  constructor(state: string) {
    this.#base = join(state, 'troupe.kernel.v1.kernel');
  }

  /** What lies in a plugin's folder now. */
  read(manifest: Manifest): Promise<Closure> {
    const protos = Object.values(manifest.serves).flatMap(({ proto }) => (proto === undefined ? [] : [proto]));
    return this.#reader.read(manifest.dir, [manifest.file, ...protos]);
  }

  /** Copies what lies in the folder and returns the copy's. Doing it again costs nothing. @throws the system's error: no room */
  async keep(manifest: Manifest, closure: Closure): Promise<string> {
    const { dir, id } = manifest;
    // As deep as imports reach upwards, so that they find their links at the same place.
    const ups = closure.shared.map(
      (path) =>
        relative(dir, path)
          .split(sep)
          .filter((part) => part === '..').length,
    );
    const depth = Math.max(1, ...ups);
    const base = join(this.#base, 'builds', id, closure.digest.slice(0, 32));
    const tail = dir
      .split(sep)
      .filter((part) => part !== '')
      .slice(-depth);
    const copy = join(base, ...tail);
    this.#prepared ??= this.#prepare();
    await this.#prepared;
    // The manifest is copied last: with it the copy is complete.
    if (await isThere(join(copy, basename(manifest.file)))) return copy;
    for (const path of closure.own.toSorted((a) => (a === manifest.file ? 1 : -1))) {
      const target = join(copy, relative(dir, path));
      await mkdir(dirname(target), { recursive: true });
      await copyFile(path, target);
    }
    for (const link of linksOf(dir, closure.shared)) await linked(resolve(dir, link), resolve(copy, link));
    if (await isThere(join(dir, 'node_modules'))) await linked(join(dir, 'node_modules'), join(copy, 'node_modules'));
    return copy;
  }

  /** Removes the copies of a plugin but these. */
  async forget(id: string, kept: readonly (string | undefined)[]): Promise<void> {
    const base = join(this.#base, 'builds', id);
    for (const name of await readdir(base).catch(() => [])) {
      const dir = join(base, name);
      if (kept.some((copy) => copy?.startsWith(dir + sep))) continue;
      await rm(dir, { recursive: true, force: true });
    }
  }

  /** The copies of an earlier life are of nobody. */
  async #prepare(): Promise<void> {
    const builds = join(this.#base, 'builds');
    await rm(builds, { recursive: true, force: true });
    await mkdir(join(builds, 'node_modules'), { recursive: true, mode: 0o700 });
    await linked(checkout, join(builds, 'node_modules', 'troupe'));
    const library = createRequire(import.meta.url).resolve('comlink');
    const modules = library.slice(0, library.lastIndexOf(`${sep}comlink${sep}`));
    await linked(modules, join(this.#base, 'node_modules'));
  }
}

/** The first name outside of the folder on the way to each: `../lib` for `../lib/digest/digest.ts`. */
function linksOf(dir: string, paths: readonly string[]): Set<string> {
  return new Set(
    paths.map((path) => {
      const parts = relative(dir, path).split(sep);
      return join(...parts.slice(0, parts.findIndex((part) => part !== '..') + 1));
    }),
  );
}

async function linked(target: string, path: string): Promise<void> {
  if (await isThere(path)) return;
  await mkdir(dirname(path), { recursive: true });
  await symlink(target, path);
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}

/** A path in the plugin's folder, as it is in the folder that the build is started from. */
export function inBuild({ manifest, dir }: Build, path: string): string {
  return path.startsWith(manifest.dir + sep) ? join(dir, relative(manifest.dir, path)) : path;
}
