/**
 * Code that `make.ts` has put together beforehand: for each worker of the built-in plugins, and for the kernel, one image that is run in place of some
 * hundred modules. Finding, reading and linking modules one by one was half of the daemon's start and a third of its memory.
 *
 * The sources stay what counts. An image holds for as long as every file that it was made from is as it was then; otherwise, and where there is none, the
 * sources are loaded, with the same result.
 */
import { readFileSync, statSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const checkout = fileURLToPath(new URL('../../', import.meta.url));
export const imagesDir = fileURLToPath(new URL('../../.cache/prebuilt/', import.meta.url));

/** A file that an image was made from, relative to the checkout. */
export type Stamp = readonly [path: string, size: number, mtimeMs: number];

export interface Image {
  /** File in {@link imagesDir} that is loaded first. */
  readonly entry: string;
  /** Folders of the plugins in it, relative to the checkout; none for the kernel's own and a pool's. */
  readonly plugins: readonly string[];
  /** What the threads of a pool run, relative to the checkout. */
  readonly module?: string;
  /** Indexes into {@link Index.files}. */
  readonly files: readonly number[];
}

export interface Index {
  readonly images: readonly Image[];
  readonly files: readonly Stamp[];
}

/** What there is; undefined when nothing has been made, or not by this version. */
export function readIndex(): Index | undefined {
  try {
    return JSON.parse(readFileSync(`${imagesDir}index.json`, 'utf8')) as Index;
  } catch {
    return undefined;
  }
}

/** The image is what its sources would be. */
export function isCurrent({ files }: Index, image: Image): boolean {
  return image.files.every((index) => {
    const [path, size, mtimeMs] = files[index]!;
    const now = statSync(checkout + path, { throwIfNoEntry: false });
    return now !== undefined && now.size === size && Math.trunc(now.mtimeMs) === mtimeMs;
  });
}

let index: Index | null | undefined;

/** URL of the kernel's image, or of the smallest that has the plugins of these folders. @param dirs absolute; none: the kernel's */
export function prebuilt(dirs: readonly string[]): URL | undefined {
  index ??= readIndex() ?? null;
  if (index === null) return undefined;
  const wanted = dirs.map((dir) => relative(checkout, dir));
  const [image] = index.images
    .filter(
      ({ plugins, module }) =>
        module === undefined &&
        (wanted.length === 0) === (plugins.length === 0) &&
        wanted.every((dir) => plugins.includes(dir)),
    )
    .sort((a, b) => a.plugins.length - b.plugins.length);
  return current(index, image);
}

/** URL of the image of what a pool's threads run. */
export function prebuiltThread(module: URL): URL | undefined {
  index ??= readIndex() ?? null;
  if (index === null) return undefined;
  const wanted = relative(checkout, fileURLToPath(module));
  return current(
    index,
    index.images.find((image) => image.module === wanted),
  );
}

function current(of: Index, image: Image | undefined): URL | undefined {
  return image !== undefined && isCurrent(of, image)
    ? new URL(`../../.cache/prebuilt/${image.entry}`, import.meta.url)
    : undefined;
}
