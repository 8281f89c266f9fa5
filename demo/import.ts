/** Import and unpack as a client does them: blobs under a lease, then every layer at once, committed in order. */
import { createHash } from 'node:crypto';
import {
  ContentDefinition,
  WriteAction,
  type WriteContentRequest,
} from '../proto/gen/containerd/services/content/v1/content.ts';
import { DiffDefinition } from '../proto/gen/containerd/services/diff/v1/diff.ts';
import { ImagesDefinition } from '../proto/gen/containerd/services/images/v1/images.ts';
import { CreateImageRequest } from '../proto/gen/containerd/services/images/v1/images.ts';
import { LeasesDefinition } from '../proto/gen/containerd/services/leases/v1/leases.ts';
import { SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import type { Mount } from '../proto/gen/containerd/types/mount.ts';
import { type GrpcClient, typedClient } from '../kernel/front/client.ts';
import { Failure } from '../kernel/sdk/failure.ts';
import type { Blob, Image, Layer } from './image.ts';
import type { Progress } from './progress.ts';

const chunkBytes = 1 << 20;

/** Stores the blobs and names the image. A lease keeps them until the name does. */
export async function importImage(client: GrpcClient, image: Image, progress: Progress): Promise<string> {
  const { lease } = await typedClient(client, LeasesDefinition).create({ id: `demo-${process.pid}`, labels: {} });
  const call = { lease: lease!.id };
  const references = [image.config, ...image.layers];
  await Promise.all(references.map((each) => store(client, each, {}, call, progress)));
  const labels = Object.fromEntries(
    references.map((each, index) => [
      `containerd.io/gc.ref.content.${index === 0 ? 'config' : `l.${index - 1}`}`,
      each.digest,
    ]),
  );
  await store(client, image.manifest, labels, call, progress);
  const { mediaType, digest, size } = image.manifest;
  await typedClient(client, ImagesDefinition).create(
    CreateImageRequest.fromPartial({ image: { name: image.name, target: { mediaType, digest, size } } }),
    call,
  );
  return lease!.id;
}

async function store(
  client: GrpcClient,
  blob: Blob,
  labels: Record<string, string>,
  call: { lease: string },
  progress: Progress,
): Promise<void> {
  async function* requests(): AsyncGenerator<WriteContentRequest> {
    const base = { ref: `demo-${blob.digest}`, total: BigInt(blob.size), expected: blob.digest, labels: {} };
    for (let at = 0; at < blob.size; at += chunkBytes) {
      yield { ...base, action: WriteAction.WRITE, offset: BigInt(at), data: blob.bytes.subarray(at, at + chunkBytes) };
    }
    yield { ...base, action: WriteAction.COMMIT, offset: BigInt(blob.size), data: new Uint8Array(), labels };
  }
  for await (const { offset } of typedClient(client, ContentDefinition).write(requests(), call))
    progress.set(blob.digest, Number(offset), blob.size);
}

export interface Unpacked {
  /** Chain ids, bottom first; each names a snapshot. */
  readonly chain: readonly string[];
  /** Layers that had to wait for the one below after all, with the daemon's reason. */
  readonly waited: ReadonlyMap<Layer, string>;
}

/**
 * All layers at once where the snapshotter can put a parent under a layer afterwards; one after the other where not.
 *
 * A layer that is unpacked before its parent is there goes into an overlay mount of which only the upper directory is known: so whiteouts become
 * overlayfs's own. One that leans on the layers below is refused there, and is unpacked in its turn.
 */
export async function unpack(
  client: GrpcClient,
  image: Image,
  { snapshotter, parallel }: { snapshotter: string; parallel: boolean },
  lease: string,
  progress: Progress,
): Promise<Unpacked> {
  const snapshots = typedClient(client, SnapshotsDefinition);
  const diff = typedClient(client, DiffDefinition);
  const call = { lease };
  const key = (layer: Layer) => `demo-extract-${layer.diffId}`;
  const apply = async (layer: Layer, mounts: Mount[]) => {
    const { mediaType, digest, size } = layer;
    const { applied } = await diff.apply(
      { diff: { mediaType, digest, size: BigInt(size), annotations: {} }, mounts, payloads: {}, syncFs: false },
      call,
    );
    if (applied?.digest !== layer.diffId)
      throw new Error(`layer ${digest} unpacked to ${applied?.digest}, its image says ${layer.diffId}`);
    progress.set(`unpack ${digest}`, layer.rawSize, layer.rawSize);
  };
  const prepare = async (layer: Layer, parent: string): Promise<Mount[]> =>
    (await snapshots.prepare({ snapshotter, key: key(layer), parent, labels: {} }, call)).mounts;

  const waited = new Map<Layer, string>();
  const ahead = new Set<Layer>();
  const tryAhead = async (layer: Layer) => {
    const mounts = await prepare(layer, '');
    try {
      await apply(layer, mounts.map(withoutLower));
      ahead.add(layer);
    } catch (error) {
      if (!Failure.is(error, 'FailedPrecondition')) throw error;
      waited.set(layer, error.message.replace(/^layer \S+: |; remove the snapshot.*$/g, ''));
      await snapshots.remove({ snapshotter, key: key(layer) }, call);
    }
  };
  if (parallel) await allSettled(image.layers.map(tryAhead));

  const chain: string[] = [];
  for (const layer of image.layers) {
    const parent = chain.at(-1) ?? '';
    if (!ahead.has(layer)) await apply(layer, await prepare(layer, parent));
    const name = chainId(parent, layer.diffId);
    const labels = { 'containerd.io/gc.root': new Date().toISOString() };
    await snapshots.commit(
      { snapshotter, name, key: key(layer), labels, parent: ahead.has(layer) ? parent : '' },
      call,
    );
    chain.push(name);
  }
  return { chain, waited };
}

/** A snapshot without a parent is a bind mount of the directory that becomes an upper one. Backslashes, commas and colons are escaped in overlay's options. */
function withoutLower(mount: Mount): Mount {
  if (mount.type !== 'bind') return mount;
  return { ...mount, type: 'overlay', options: [`upperdir=${mount.source.replace(/[\\,:]/g, '\\$&')}`] };
}

/** Waits for all, so that nothing runs on behind a failure; then the first failure. */
async function allSettled(work: readonly Promise<void>[]): Promise<void> {
  for (const each of await Promise.allSettled(work)) if (each.status === 'rejected') throw each.reason;
}

/** What each snapshot lacks because the daemon may not do it, by kind: how many snapshots. */
export async function omissions(
  client: GrpcClient,
  snapshotter: string,
  chain: readonly string[],
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const key of chain) {
    const { info } = await typedClient(client, SnapshotsDefinition).stat({ snapshotter, key });
    for (const kind of info?.labels['troupe/omitted']?.split(',') ?? []) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return counts;
}

/** OCI image spec, "Layer ChainID". */
function chainId(parent: string, diffId: string): string {
  return parent === '' ? diffId : `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`;
}
