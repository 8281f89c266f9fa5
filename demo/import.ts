/** Import and unpack as a client does them: blobs under a lease, then every layer at once, committed in order. */
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
import { createHash } from 'node:crypto';
import { type GrpcClient, typedClient } from '../kernel/front/client.ts';
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

/** All layers at once where the snapshotter can put a parent under a layer afterwards; one after the other where not. Returns the chain id of the top. */
export async function unpack(
  client: GrpcClient,
  image: Image,
  snapshotter: string,
  parallel: boolean,
  lease: string,
  progress: Progress,
): Promise<string> {
  const snapshots = typedClient(client, SnapshotsDefinition);
  const diff = typedClient(client, DiffDefinition);
  const call = { lease };
  const apply = async (layer: Layer, key: string, parent: string) => {
    const { mounts } = await snapshots.prepare({ snapshotter, key, parent, labels: {} }, call);
    const { mediaType, digest, size } = layer;
    const { applied } = await diff.apply(
      { diff: { mediaType, digest, size: BigInt(size), annotations: {} }, mounts, payloads: {}, syncFs: false },
      call,
    );
    if (applied?.digest !== layer.diffId)
      throw new Error(`layer ${digest} unpacked to ${applied?.digest}, its image says ${layer.diffId}`);
    progress.set(`unpack ${digest}`, layer.rawSize, layer.rawSize);
  };
  const key = (layer: Layer) => `demo-extract-${layer.diffId}`;
  if (parallel) await Promise.all(image.layers.map((layer) => apply(layer, key(layer), '')));
  let parent = '';
  for (const layer of image.layers) {
    if (!parallel) await apply(layer, key(layer), parent);
    const name = chainId(parent, layer.diffId);
    await snapshots.commit(
      {
        snapshotter,
        name,
        key: key(layer),
        labels: { 'containerd.io/gc.root': new Date().toISOString() },
        parent: parallel ? parent : '',
      },
      call,
    );
    parent = name;
  }
  return parent;
}

/** OCI image spec, "Layer ChainID". */
function chainId(parent: string, diffId: string): string {
  return parent === '' ? diffId : `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`;
}
