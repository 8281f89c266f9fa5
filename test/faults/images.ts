/** The archives that clients import, and what the checker must find when they have. */
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { busyboxLayer, type Compression, imageLayout, sha256, writeOciArchive } from '../helpers/image.ts';
import type { Files, Fixtures, ImageFixture } from './checker/fixtures.ts';
import { bytesOf } from './random.ts';

export interface ImageArchive {
  /** The reference that it gets on import. */
  readonly name: string;
  readonly path: string;
  readonly digest: string;
}

export interface BaseImage extends ImageArchive {
  /** Of its uppermost layer. */
  readonly chainId: string;
}

export interface ImageSet {
  /** With busybox, for containers. */
  readonly base: BaseImage;
  readonly archives: readonly ImageArchive[];
  /** The file for the checker. */
  readonly fixtures: string;
}

/** Numbers of files and bytes of one layer. */
type Shape = readonly (readonly [count: number, bytes: number])[];

const shapes: readonly (readonly Shape[])[] = [
  // Many small files, as most layers.
  [
    [[200, 300]],
    [
      [100, 1500],
      [3, 70_000],
    ],
  ],
  // A stack.
  [[[5, 20_000]], [[8, 4000]], [[1, 200_000]], [[2, 10]]],
  // One that takes long enough for a fault to fall into it.
  [[[4, 1_500_000]], [[40, 9000]]],
];

/** Makes `count` different images below `directory`, and the base. Some files are empty, some lie deep. */
export function makeImages(directory: string, count: number): ImageSet {
  mkdirSync(directory);
  const images: ImageFixture[] = [];
  const loose: string[] = [];
  const make = (label: string, fills: readonly ((dir: string) => void)[], compression: Compression): BaseImage => {
    const files: Files[] = [];
    const layers = fills.map((fill) => (dir: string) => {
      fill(dir);
      files.push(filesBelow(dir));
    });
    const layout = imageLayout({ layers, compression });
    const name = `faults.test/${label}:1`;
    const path = join(directory, `${label}.tar`);
    writeOciArchive(path, layout, name);
    images.push({
      target: layout.target.digest,
      blobs: Object.fromEntries([...layout.blobs].map(([digest, bytes]) => [digest, bytes.length])),
      layers: layout.chainIds.map((chainId, index) => ({ chainId, files: files[index]! })),
    });
    loose.push(sha256(indexOf(layout.target, name)));
    return { name, path, digest: layout.target.digest, chainId: layout.chainIds.at(-1)! };
  };
  const base = make('base', [busyboxLayer], 'gzip');
  const archives = Array.from({ length: count }, (_, number) => {
    const fills = shapes[number % shapes.length]!.map(
      (shape, index) => (dir: string) => fill(dir, `image ${number} layer ${index}`, shape),
    );
    // ctr sends every archive's index under one ref, and goes on with what another import left there when the sizes are the same: the digest that it
    // looks for is then not there. So each has a name, and an index, of its own length.
    return make(`image-${number}${'x'.repeat(number)}`, fills, (['gzip', 'zstd', 'none'] as const)[number % 3]!);
  });
  const fixtures = join(directory, 'fixtures.json');
  writeFileSync(fixtures, JSON.stringify({ images, loose } satisfies Fixtures));
  return { base, archives, fixtures };
}

/** The archive's index.json, which an import stores as well. */
function indexOf(target: object, name: string): Buffer {
  const annotations = {
    'io.containerd.image.name': name,
    'org.opencontainers.image.ref.name': name.split(':').at(-1)!,
  };
  return Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ ...target, annotations }] }));
}

function fill(dir: string, name: string, shape: Shape): void {
  for (const [count, bytes] of shape) {
    for (let number = 0; number < count; number++) {
      const path = join(dir, `d${number % 7}`, bytes > 10_000 ? 'deep/er' : '.', `${bytes}-${number}`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytesOf(`${name} ${number}`, number % 10 === 9 ? 0 : bytes + number));
    }
  }
}

export function filesBelow(top: string, dir: string = top): Files {
  const files: Record<string, [number, string]> = {};
  for (const name of existsSync(dir) ? readdirSync(dir) : []) {
    const path = join(dir, name);
    const stat = lstatSync(path);
    if (stat.isDirectory()) Object.assign(files, filesBelow(top, path));
    else if (stat.isFile())
      files[relative(top, path)] = [stat.size, sha256(readFileSync(path)).slice('sha256:'.length)];
  }
  return files;
}
