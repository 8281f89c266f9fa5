/** What the machine can do at most, each step alone: the same bytes inflated, hashed, untarred by the tools that people would use, on the same kind of disk. */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, fsyncSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type BenchImage, digestOfFile } from '../images.ts';
import { makeDisk, warmMemory } from '../disk.ts';
import { run } from './work.ts';

export interface Limit {
  readonly what: string;
  readonly seconds: number;
}

export async function measureLimits(image: BenchImage, megabytes: number): Promise<Limit[]> {
  const limits: Limit[] = [];
  const measure = async (what: string, work: () => void | Promise<void>): Promise<void> => {
    const began = performance.now();
    await work();
    limits.push({ what, seconds: (performance.now() - began) / 1000 });
  };
  const each = async (work: (index: number) => Promise<void>): Promise<void> => {
    for (const index of image.layers.keys()) await work(index);
  };
  const packed = (index: number, packing: 'gzip' | 'zstd'): string => image.layers[index]!.packed[packing].file;
  if (installed('igzip'))
    await measure('igzip -dc', () => each((i) => shell(`igzip -dc '${packed(i, 'gzip')}' >/dev/null`)));
  await measure('gzip -dc', () => each((i) => shell(`gzip -dc '${packed(i, 'gzip')}' >/dev/null`)));
  if (installed('zstd'))
    await measure('zstd -dc', () => each((i) => shell(`zstd -qdc '${packed(i, 'zstd')}' >/dev/null`)));
  await measure('sha256 of the raw tar', () => {
    for (const layer of image.layers) digestOfFile(layer.tar);
  });
  const onDisk = async (what: string, work: (dir: string) => Promise<void>): Promise<void> => {
    const disk = makeDisk(megabytes);
    try {
      warmMemory(megabytes);
      await measure(what, () => work(disk.dir));
    } finally {
      disk.remove();
    }
  };
  await onDisk('tar -x of the raw tar', (dir) =>
    each((i) => shell(`tar -C '${inner(dir, i)}' -xf '${image.layers[i]!.tar}'`)),
  );
  if (installed('igzip')) {
    await onDisk('igzip -dc | tar -x', (dir) =>
      each((i) => shell(`igzip -dc '${packed(i, 'gzip')}' | tar -C '${inner(dir, i)}' -xf -`)),
    );
    await onDisk('igzip -dc | tar -x, then sync', async (dir) => {
      await each((i) => shell(`igzip -dc '${packed(i, 'gzip')}' | tar -C '${inner(dir, i)}' -xf -`));
      await run('sync', ['-f', dir]);
    });
  }
  for (const [packing, inflate] of [
    ['gzip', 'igzip -dc'],
    ['zstd', 'zstd -qdc'],
  ] as const) {
    if (!['openssl', inflate.split(' ')[0]!].every(installed)) continue;
    await onDisk(`${inflate} | openssl sha256 and tar -x, a layer on each processor, then sync`, async (dir) => {
      await onEachProcessor(image, (i) => shell(hashedAndUnpacked(inflate, packed(i, packing), inner(dir, i))));
      await run('sync', ['-f', dir]);
    });
  }
  await onDisk('disk: the raw bytes written and synced', async (dir) => copySynced(image, join(dir, 'raw')));
  return limits;
}

/** What a pull does beside bringing and storing the blob, by programs that people have. The third descriptor takes the bytes past tar. */
function hashedAndUnpacked(inflate: string, packed: string, dir: string): string {
  const unpack = `${inflate} '${packed}' | tee /dev/fd/3 | tar -C '${dir}' -xf -`;
  return `{ ${unpack}; } 3>&1 >/dev/null | openssl dgst -sha256 >/dev/null`;
}

/** The largest layer first: what is left for the end should be short. */
async function onEachProcessor(image: BenchImage, work: (index: number) => Promise<void>): Promise<void> {
  const left = [...image.layers.keys()].sort((a, b) => image.layers[b]!.rawSize - image.layers[a]!.rawSize);
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await work(next);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

function inner(dir: string, index: number): string {
  const path = join(dir, String(index));
  mkdirSync(path);
  return path;
}

function copySynced(image: BenchImage, to: string): void {
  const buffer = Buffer.allocUnsafe(2 ** 20);
  const target = openSync(to, 'w');
  for (const { tar } of image.layers) {
    const source = openSync(tar, 'r');
    for (let length = readSync(source, buffer); length > 0; length = readSync(source, buffer))
      writeSync(target, buffer, 0, length);
    closeSync(source);
  }
  fsyncSync(target);
  closeSync(target);
}

function shell(command: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${command} ended with ${code}`))));
  });
}

export function installed(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
