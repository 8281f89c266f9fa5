/** What is timed: `ctr` bringing an image into a fresh daemon, and layers being unpacked that the daemon has already. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { DiffDefinition } from '../../proto/gen/containerd/services/diff/v1/diff.ts';
import { SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import type { Mount } from '../../proto/gen/containerd/types/mount.ts';
import type { BenchImage, Packing } from '../images.ts';
import { makeDisk, warmMemory } from '../disk.ts';
import { cpuOf, type Peer, type PeerOptions, startPeer } from '../peers.ts';

export const namespace = 'bench';
const snapshotter = 'overlayfs';

export interface Timed {
  readonly seconds: number;
  /** MiB of resident memory at its highest, beyond what the daemon had before. */
  readonly extraMiB: number;
  /** Of the daemon's processors: says what was done also where neighbours make the time say little. */
  readonly cpuSeconds: number;
}

/** Runs `work` against a daemon that has nothing, on a disk that has nothing. */
export async function withFreshPeer<T>(
  name: Peer['name'],
  megabytes: number,
  options: PeerOptions,
  work: (peer: Peer, dir: string) => Promise<T>,
): Promise<T> {
  const disk = makeDisk(megabytes);
  try {
    const peer = await startPeer(name, disk.dir, options);
    try {
      return await work(peer, disk.dir);
    } finally {
      await peer.stop();
    }
  } finally {
    disk.remove();
  }
}

/** Beyond what the largest image has, raw and packed. */
const pageCacheMiB = 4096;

export async function timed(pid: number, work: () => Promise<void>): Promise<Timed> {
  warmMemory(pageCacheMiB);
  // Resets VmHWM (proc(5), clear_refs).
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  const before = memory(pid, 'VmRSS');
  const cpu = cpuOf(pid);
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1000;
  return { seconds, extraMiB: (memory(pid, 'VmHWM') - before) / 1024, cpuSeconds: cpuOf(pid) - cpu };
}

function memory(pid: number, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}

export function importByCtr(peer: Peer, archive: string, unpack: boolean): Promise<void> {
  const how = unpack ? ['--snapshotter', snapshotter] : ['--no-unpack'];
  return run('ctr', ['-a', peer.address, '-n', namespace, 'images', 'import', ...how, archive]);
}

export function run(program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const said: Buffer[] = [];
    child.stderr.on('data', (chunk: Buffer) => said.push(chunk));
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${program} ${args.join(' ')} ended with ${code}: ${Buffer.concat(said)}`));
    });
  });
}

/**
 * Prepare, Apply and Commit of every layer: all layers at once where the daemon takes a snapshot's parent at its Commit, in order where it does not, as
 * containerd's own client does it. Every layer's contents are checked against the config's diff id.
 */
export async function unpackByClient(peer: Peer, image: BenchImage, packing: Packing, ahead: boolean): Promise<void> {
  const client = new GrpcClient(peer.address, { namespace });
  try {
    const snapshots = typedClient(client, SnapshotsDefinition);
    const differ = typedClient(client, DiffDefinition);
    const labels = { 'containerd.io/gc.root': '2026-01-01T00:00:00Z' };
    const prepare = async (index: number, parent: string): Promise<Mount[]> =>
      (await snapshots.prepare({ snapshotter, key: `bench-${index}`, parent, labels })).mounts;
    const apply = async (index: number, mounts: Mount[]): Promise<void> => {
      const layer = image.layers[index]!;
      const diff = { ...layer.packed[packing].descriptor, annotations: {} };
      const { applied } = await differ.apply({
        diff: { ...diff, size: BigInt(diff.size) },
        mounts,
        payloads: {},
        syncFs: false,
      });
      if (applied?.digest !== layer.diffId) throw new Error(`${image.name} layer ${index}: diff id ${applied?.digest}`);
    };
    const chain = chainIds(image.layers.map((layer) => layer.diffId));
    const commit = async (index: number): Promise<void> => {
      const parent = index === 0 || !ahead ? '' : chain[index - 1]!;
      await snapshots.commit({ snapshotter, name: chain[index]!, key: `bench-${index}`, labels, parent });
    };
    if (!ahead) {
      for (const index of image.layers.keys()) {
        await apply(index, await prepare(index, chain[index - 1] ?? ''));
        await commit(index);
      }
      return;
    }
    const applied = [...image.layers.keys()].map(async (index) => apply(index, detached(await prepare(index, ''))));
    // Met in their turn.
    for (const each of applied) each.catch(() => {});
    for (const index of image.layers.keys()) {
      await applied[index];
      await commit(index);
    }
  } finally {
    client.close();
  }
}

/** The snapshot without its parents, as the upper directory of an overlay to be. */
function detached([mount]: readonly Mount[]): Mount[] {
  const upper = mount!.source.replace(/[\\,:]/g, '\\$&');
  return [{ type: 'overlay', source: 'overlay', target: '', options: [`upperdir=${upper}`] }];
}

function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const id of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? id : `sha256:${createHash('sha256').update(`${below} ${id}`).digest('hex')}`);
  }
  return chain;
}
