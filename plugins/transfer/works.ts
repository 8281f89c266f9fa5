/** What each pair of ends means. */
import { type Call, Failure, type PluginContext } from 'troupe/plugin';
import type { Image } from 'troupe/proto/containerd/services/images/v1/images.ts';
import type { ImageStore } from 'troupe/proto/containerd/types/transfer/image_store.ts';
import type { Platform as PlatformMessage } from 'troupe/proto/containerd/types/platform.ts';
import { StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { hostPlatform, type Platform } from '../lib/image/platform.ts';
import type { Transports } from '../lib/registry/transports.ts';
import { ClientStream } from './client-stream.ts';
import type { Config } from './config.ts';
import { type End, type Ends, nameOf } from './ends.ts';
import { foundNames, givenNames, lookedUpNames, storeImages } from './image-names.ts';
import type { Progress } from './progress.ts';
import { pull, type UnpackWish } from './pull.ts';
import { blobOptionsOf, openRegistry } from './registry-access.ts';
import { push } from './push.ts';
import { exportArchive, targetOf } from './export.ts';
import { requireVerified } from './image-verifiers.ts';
import { importArchive } from './import.ts';
import { adopt } from './stored.ts';
import { type Clients, type Scope, withLease } from './scope.ts';
import type { Downloads } from './downloads.ts';
import type { Slots } from './together.ts';
import type { Selection } from './tree.ts';

export interface Job {
  readonly ctx: PluginContext<Config>;
  readonly transports: Transports;
  readonly downloads: Downloads;
  readonly uploads: Slots;
  readonly clients: Clients;
  readonly call: Call & { readonly namespace: string };
  readonly progress: Progress;
  readonly source: End;
  readonly destination: End;
}

export type Work = (job: Job) => Promise<void>;

/** By `SOURCE DESTINATION`. */
export const works: Readonly<Record<string, Work | undefined>> = {
  'registry store': pullImage,
  'store store': tagImage,
  'store registry': pushImage,
  'import store': importImages,
  'store export': exportImages,
  'import export': echo,
};

async function pullImage(job: Job): Promise<void> {
  const { ctx, progress, call } = job;
  const source = endOf(job.source, 'registry');
  const store = endOf(job.destination, 'store');
  const access = await openRegistry(ctx, ctx.config, job.transports, source, call);
  try {
    await withLease(job.clients, call, progress, async (scope) => {
      progress.say(`Resolving from ${nameOf(job.source)}`);
      const resolved = await access.registry.resolve(call.signal);
      const names = givenNames(store, resolved.digest);
      if (names.length === 0) throw new Failure('NotFound', 'no image name found: not found');
      await requireVerified(ctx, { ...resolved, name: source.reference }, call);
      progress.say(`Pulling from ${nameOf(job.source)}`);
      progress.say('fetching image content', source.reference, resolved);
      const target = await pull(ctx, scope, access.registry, resolved, {
        selection: selectionOf(store),
        unpacks: unpacksOf(store, ctx.config),
        blobs: blobOptionsOf(ctx.config),
        downloads: job.downloads,
      });
      await save(scope, names, target, store.labels, call);
      progress.say(`Completed pull from ${nameOf(job.source)}`);
    });
  } finally {
    access.close();
  }
}

async function tagImage(job: Job): Promise<void> {
  const source = endOf(job.source, 'store');
  const store = endOf(job.destination, 'store');
  await withLease(job.clients, job.call, job.progress, async (scope) => {
    const target = targetOf(await find(scope, source.name));
    await save(scope, givenNames(store, target.digest), target, store.labels, job.call);
  });
}

async function pushImage(job: Job): Promise<void> {
  const { ctx, progress, call } = job;
  const source = endOf(job.source, 'store');
  const destination = endOf(job.destination, 'registry');
  const access = await openRegistry(ctx, ctx.config, job.transports, destination, call);
  try {
    await withLease(job.clients, call, progress, async (scope) => {
      const image = await find(scope, source.name);
      const target = targetOf(image);
      progress.say(`Pushing to ${nameOf(job.destination)}`);
      progress.say('pushing content', image.name, target);
      await push(scope, access.registry, target, image.name, {
        selection: selectionOf(source),
        push: { backoff: blobOptionsOf(ctx.config).backoff, chunk: ctx.config.upload_chunk },
        uploads: job.uploads,
      });
      progress.say('pushed content', image.name, target);
      progress.say(`Completed push to ${nameOf(job.destination)}`, '', target);
    });
  } finally {
    access.close();
  }
}

async function importImages(job: Job): Promise<void> {
  const { ctx, progress, call } = job;
  const { stream: id, forceCompress } = endOf(job.source, 'import');
  const store = endOf(job.destination, 'store');
  const stream = await ClientStream.take(ctx.call(StreamsDefinition), id, call);
  try {
    await withLease(job.clients, call, progress, async (scope) => {
      progress.say('Importing');
      const { index, manifests } = await importArchive(scope, stream.bytes(), forceCompress);
      await adopt(ctx, scope, index, selectionOf(store), unpacksOf(store, ctx.config));
      const given = givenNames(store, index.digest);
      if (given.length > 0) await save(scope, given, index, store.labels, call);
      for (const manifest of manifests) {
        const names = foundNames(store, manifest);
        if (names.length > 0) await save(scope, names, manifest, store.labels, call);
      }
      progress.say('Completed import');
    });
  } finally {
    stream.close();
  }
}

async function exportImages(job: Job): Promise<void> {
  const { ctx, progress, call } = job;
  const source = endOf(job.source, 'store');
  const wishes = endOf(job.destination, 'export');
  const stream = await ClientStream.take(ctx.call(StreamsDefinition), wishes.stream, call);
  try {
    await withLease(job.clients, call, progress, async (scope) => {
      progress.say('Exporting');
      const names = lookedUpNames(source);
      const images = await Promise.all(names.map((name) => find(scope, name)));
      const asked = wishes.platforms.map(platformOf);
      const platforms = wishes.allPlatforms ? [] : asked.length > 0 ? asked : [hostPlatform()];
      await stream.write(
        exportArchive(scope, images, {
          platforms,
          skipCompatibility: wishes.skipCompatibilityManifest,
          skipForeign: wishes.skipNonDistributable,
        }),
      );
      progress.say('Completed export');
    });
  } finally {
    stream.close();
  }
}

/** The bytes of one stream to another, as they are: what clients try streams with. */
async function echo({ ctx, call, source, destination }: Job): Promise<void> {
  const streams = ctx.call(StreamsDefinition);
  const from = await ClientStream.take(streams, endOf(source, 'import').stream, call);
  try {
    const to = await ClientStream.take(streams, endOf(destination, 'export').stream, call);
    try {
      await to.write(from.bytes());
    } finally {
      to.close();
    }
  } finally {
    from.close();
  }
}

async function find({ clients, namespace, signal }: Scope, name: string): Promise<Image> {
  const { image } = await clients.images.get({ name }, { namespace, signal });
  return image!;
}

/** Images of these names, told one by one. */
export async function save(
  scope: Scope,
  names: readonly string[],
  target: Pick<Descriptor, 'mediaType' | 'digest' | 'size' | 'annotations'>,
  labels: Readonly<Record<string, string>>,
  call: Pick<Call, 'namespace' | 'signal' | 'trace'>,
): Promise<void> {
  const { namespace, signal, trace } = call;
  for (const { name } of await storeImages(scope.clients.images, names, target, labels, {
    namespace,
    signal,
    trace,
    lease: scope.lease,
  }))
    scope.progress.say('saved', name, target);
}

export function endOf<K extends keyof Ends>(end: End, kind: K): Ends[K] {
  if (end.kind !== kind) throw new TypeError(`an end of a transfer is a ${end.kind}, not a ${kind}`);
  return end.end as Ends[K];
}

export function selectionOf({ platforms, allMetadata, manifestLimit }: ImageStore): Selection {
  return { platforms: platforms.map(platformOf), allMetadata, manifestLimit };
}

export function unpacksOf({ unpacks }: ImageStore, config: Config): UnpackWish[] {
  return unpacks.map(({ platform, snapshotter }) => ({
    platform: platform === undefined || platform.architecture === '' ? undefined : platformOf(platform),
    snapshotter: snapshotter || config.default_snapshotter,
  }));
}

export function platformOf({ os, architecture, variant }: PlatformMessage): Platform {
  return { os, architecture, variant };
}
