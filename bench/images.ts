/**
 * Images made of the machine's own files, as layers lie in registries: GNU tar's archives, gzip -6 or zstd -3. Built once into a directory and kept there,
 * so that benchmarks that are run again with the same directory do not build them again.
 *
 *   DIR/NAME/layers/0.tar 0.tar.gz 0.tar.zst      what limits are measured with
 *   DIR/NAME/gzip.tar zstd.tar                    OCI archives for `ctr images import`
 *   DIR/NAME/built.json                           written last: all of the above is whole
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { constants, createZstdCompress } from 'node:zlib';
import { leftover } from './leftovers.ts';

export type Packing = 'gzip' | 'zstd';
export const packings: readonly Packing[] = ['gzip', 'zstd'];

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface BenchLayer {
  /** The raw archive. */
  readonly tar: string;
  readonly rawSize: number;
  readonly diffId: string;
  readonly packed: Readonly<Record<Packing, { readonly file: string; readonly descriptor: Descriptor }>>;
}

export interface BenchImage {
  readonly name: string;
  /** Regular files. */
  readonly files: number;
  /** Bytes of all raw layers. */
  readonly rawSize: number;
  readonly layers: readonly BenchLayer[];
  readonly packed: Readonly<
    Record<
      Packing,
      {
        readonly reference: string;
        readonly archive: string;
        readonly config: string;
        readonly manifest: string;
        readonly size: number;
      }
    >
  >;
}

/** What goes into an image: how large its files are, how many bytes and files it has, and how the bytes are spread over layers. */
interface Recipe {
  readonly smallest: number;
  readonly largest: number;
  readonly bytes: number;
  readonly files: number;
  readonly shares: readonly number[];
}

const MiB = 2 ** 20;
const recipes = {
  'many-small': { smallest: 0, largest: 16 * 1024, bytes: Number.POSITIVE_INFINITY, files: 55_000, shares: [1] },
  'big-files': { smallest: 2 * MiB, largest: 400 * MiB, bytes: 1024 * MiB, files: 1e9, shares: [1] },
  mixed: {
    smallest: 0,
    largest: 400 * MiB,
    bytes: 1600 * MiB,
    files: 1e9,
    shares: [0.36, 0.24, 0.16, 0.12, 0.08, 0.04],
  },
} satisfies Record<string, Recipe>;

export type ImageName = keyof typeof recipes;
export const imageNames = Object.keys(recipes) as ImageName[];

const sources = ['/usr', '/opt'];

/** @param kept where images are kept from run to run; undefined: for this run only */
export function imagesDir(kept: string | undefined): string {
  if (kept !== undefined) return kept;
  const dir = mkdtempSync(join(tmpdir(), 'troupe-bench-images-'));
  leftover(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** @param quick a twelfth of the size, for development: its figures are no figures */
export async function benchImage(name: ImageName, dir: string, quick: boolean): Promise<BenchImage> {
  const home = join(dir, quick ? `${name}-quick` : name);
  const built = join(home, 'built.json');
  if (existsSync(built)) return JSON.parse(readFileSync(built, 'utf8')) as BenchImage;
  rmSync(home, { recursive: true, force: true });
  mkdirSync(join(home, 'layers'), { recursive: true });
  const recipe = recipes[name];
  const fraction = quick ? 1 / 12 : 1;
  const chosen = choose({ ...recipe, bytes: recipe.bytes * fraction, files: recipe.files * fraction });
  const spread = split(chosen, recipe.shares);
  const layers = await inParallel(spread, (files, index) => makeLayer(files, join(home, 'layers', `${index}.tar`)));
  const image: BenchImage = {
    name,
    files: chosen.length,
    rawSize: layers.reduce((sum, layer) => sum + layer.rawSize, 0),
    layers,
    packed: { gzip: makeArchive(name, 'gzip', layers, home), zstd: makeArchive(name, 'zstd', layers, home) },
  };
  writeFileSync(built, JSON.stringify(image));
  return image;
}

interface Found {
  readonly path: string;
  readonly size: number;
}

/** Files of the machine in order of their paths, so that the same machine gives the same image. */
function choose({ smallest, largest, bytes, files }: Recipe): Found[] {
  const chosen: Found[] = [];
  let sum = 0;
  for (const source of sources) {
    for (const found of walk(source)) {
      if (found.size < smallest || found.size > largest) continue;
      chosen.push(found);
      sum += found.size;
      if (sum >= bytes || chosen.length >= files) return chosen;
    }
  }
  return chosen;
}

function* walk(directory: string): Generator<Found> {
  if (!existsSync(directory)) return;
  const entries = readdirSync(directory, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* walk(path);
    else if (entry.isFile()) yield { path, size: statSync(path).size };
  }
}

function split(files: readonly Found[], shares: readonly number[]): Found[][] {
  const whole = files.reduce((sum, file) => sum + file.size, 0);
  const layers: Found[][] = shares.map(() => []);
  let index = 0;
  let filled = 0;
  for (const file of files) {
    layers[index]!.push(file);
    filled += file.size;
    if (filled >= whole * shares[index]! && index < shares.length - 1) {
      index++;
      filled = 0;
    }
  }
  return layers;
}

async function makeLayer(files: readonly Found[], tar: string): Promise<BenchLayer> {
  // Each directory is listed before what is in it, as every builder of images does it.
  const names = new Set<string>();
  for (const { path } of files) {
    for (let parent = dirname(path); parent !== '/'; parent = dirname(parent)) names.add(parent);
    names.add(path);
  }
  const list = `${tar}.list`;
  writeFileSync(
    list,
    [...names]
      .sort()
      .map((path) => `${path.slice(1)}\0`)
      .join(''),
  );
  execFileSync('tar', [
    '--format=gnu',
    '--numeric-owner',
    '--no-recursion',
    '--null',
    '-C',
    '/',
    '-T',
    list,
    '-cf',
    tar,
  ]);
  const gzip = `${tar}.gz`;
  await gzipFile(tar, gzip);
  const zstd = `${tar}.zst`;
  // As `zstd` and builders of images have it.
  const params = { [constants.ZSTD_c_checksumFlag]: 1 };
  await pipeline(
    createReadStream(tar, { highWaterMark: MiB }),
    createZstdCompress({ params }),
    createWriteStream(zstd),
  );
  const type = 'application/vnd.oci.image.layer.v1.tar';
  const descriptor = (file: string, packing: Packing): Descriptor => ({
    mediaType: `${type}+${packing}`,
    digest: digestOfFile(file),
    size: statSync(file).size,
  });
  return {
    tar,
    rawSize: statSync(tar).size,
    diffId: digestOfFile(tar),
    packed: {
      gzip: { file: gzip, descriptor: descriptor(gzip, 'gzip') },
      zstd: { file: zstd, descriptor: descriptor(zstd, 'zstd') },
    },
  };
}

function gzipFile(from: string, to: string): Promise<void> {
  const source = openSync(from, 'r');
  const target = openSync(to, 'w');
  return new Promise((resolve, reject) => {
    const child = spawn('gzip', ['-6', '-n', '-c'], { stdio: [source, target, 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) => {
      closeSync(source);
      closeSync(target);
      if (code === 0) resolve();
      else reject(new Error(`gzip ended with ${code}`));
    });
  });
}

export function digestOfFile(path: string): string {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(MiB);
  const fd = openSync(path, 'r');
  for (let length = readSync(fd, buffer); length > 0; length = readSync(fd, buffer))
    hash.update(buffer.subarray(0, length));
  closeSync(fd);
  return `sha256:${hash.digest('hex')}`;
}

/** An OCI layout of hard links to the layers, packed into one archive. */
function makeArchive(name: string, packing: Packing, layers: readonly BenchLayer[], home: string) {
  const layout = join(home, `${packing}-layout`);
  const blobs = join(layout, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const put = (mediaType: string, value: unknown): Descriptor => {
    const text = JSON.stringify(value);
    const digest = createHash('sha256').update(text).digest('hex');
    writeFileSync(join(blobs, digest), text);
    return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(text) };
  };
  const descriptors = layers.map(({ packed }) => packed[packing].descriptor);
  for (const { packed } of layers) {
    const blob = join(blobs, packed[packing].descriptor.digest.slice(7));
    if (!existsSync(blob)) linkSync(packed[packing].file, blob);
  }
  const config = put('application/vnd.oci.image.config.v1+json', {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Cmd: ['/usr/bin/true'] },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
  });
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = put(mediaType, { schemaVersion: 2, mediaType, config, layers: descriptors });
  const reference = `bench.test/${name}:${packing}`;
  const annotations = { 'io.containerd.image.name': reference, 'org.opencontainers.image.ref.name': packing };
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  const archive = join(home, `${packing}.tar`);
  execFileSync('tar', ['-C', layout, '-cf', archive, 'oci-layout', 'index.json', 'blobs']);
  return {
    reference,
    archive,
    config: join(blobs, config.digest.slice(7)),
    manifest: join(blobs, manifest.digest.slice(7)),
    size: descriptors.reduce((sum, each) => sum + each.size, 0),
  };
}

async function inParallel<A, B>(items: readonly A[], work: (item: A, index: number) => Promise<B>): Promise<B[]> {
  const results: B[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) results[index] = await work(items[index]!, index);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, lane));
  return results;
}
