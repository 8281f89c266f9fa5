/** A directory on tmpfs for one test, with a canary outside the root that is being unpacked into. For tests. */

import { closeSync, constants, mkdirSync, mkdtempSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { O_PATH, unmountAll } from 'troupe/sys';
import { removeAll } from '../../../test/helpers/scratch.ts';
import { type Applied, type ApplyOptions, applyLayer } from './apply.ts';
import { inventory } from './inventory.ts';
import { LowerLayers } from './lower.ts';

export interface Scratch {
  readonly path: string;
  /** The root to unpack into: `<path>/root`. */
  readonly root: string;
  /** Makes another directory and answers its path. */
  directory(name: string): string;
}

export function scratch(t: ExecutionContext): Scratch {
  const path = mkdtempSync('/dev/shm/troupe-layer-');
  const directory = (name: string): string => {
    mkdirSync(join(path, name), { recursive: true });
    return join(path, name);
  };
  t.teardown(() => {
    unmountAll(path);
    removeAll(path);
  });
  return { path, root: directory('root'), directory };
}

/** Lays out things that no layer may touch; the answer checks that none did. */
export function canary(path: string): () => boolean {
  const outside = join(path, 'etc');
  mkdirSync(outside);
  writeFileSync(join(outside, 'passwd'), 'outside', { mode: 0o640 });
  writeFileSync(join(path, 'passwd'), 'outside too', { mode: 0o600 });
  const skip = (name: string): boolean => name === 'root' || name.startsWith('root/');
  const before = inventory(path, { skip, directoryTimes: true }).join('\n');
  return () => inventory(path, { skip, directoryTimes: true }).join('\n') === before;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export type UnpackOptions = Partial<Omit<ApplyOptions, 'lower'>> & { lower?: readonly string[] };

/** Unpacks `bytes` into the directory at `root`; `lower` are paths, topmost first. */
export async function unpack(root: string, bytes: Uint8Array, options: UnpackOptions = {}): Promise<Applied> {
  const open = (path: string): number => openSync(path, O_PATH | constants.O_DIRECTORY);
  const fd = open(root);
  const lower = options.lower?.map(open);
  try {
    const { lower: _, ...rest } = options;
    return await applyLayer(fd, once(bytes), {
      subject: 'layer x',
      mode: 'apply',
      ...rest,
      ...(lower === undefined ? {} : { lower: new LowerLayers(lower) }),
    });
  } finally {
    closeSync(fd);
    for (const each of lower ?? []) closeSync(each);
  }
}
