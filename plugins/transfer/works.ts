/** What each pair of ends means. */
import type { Call, PluginContext } from 'troupe/plugin';
import type { ImageStore } from 'troupe/proto/containerd/types/transfer/image_store.ts';
import type { Platform as PlatformMessage } from 'troupe/proto/containerd/types/platform.ts';
import type { Platform } from '../lib/image/platform.ts';
import type { Transports } from '../lib/registry/transports.ts';
import type { Config } from './config.ts';
import { type End, type Ends, nameOf } from './ends.ts';
import { givenNames, storeImages } from './image-names.ts';
import type { Progress } from './progress.ts';
import { pull, type UnpackWish } from './pull.ts';
import { blobOptionsOf, openRegistry } from './registry-access.ts';
import { type Clients, type Scope, withLease } from './scope.ts';
import type { Slots } from './together.ts';
import type { Selection } from './tree.ts';

export interface Job {
  readonly ctx: PluginContext<Config>;
  readonly transports: Transports;
  readonly downloads: Slots;
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
    const { image } = await job.clients.images.get(
      { name: source.name },
      { namespace: scope.namespace, signal: scope.signal },
    );
    const { mediaType, digest, size, annotations } = image!.target!;
    await save(
      scope,
      givenNames(store, digest),
      { mediaType, digest, size: Number(size), annotations },
      store.labels,
      job.call,
    );
  });
}

/** Images of these names, told one by one. */
export async function save(
  scope: Scope,
  names: readonly string[],
  target: {
    readonly mediaType: string;
    readonly digest: string;
    readonly size: number;
    readonly annotations: Readonly<Record<string, string>>;
  },
  labels: Readonly<Record<string, string>>,
  call: Pick<Call, 'namespace' | 'signal' | 'trace'>,
): Promise<void> {
  const { namespace, signal, trace } = call;
  for (const { name } of await storeImages(scope.clients.images, names, target as never, labels, {
    namespace,
    signal,
    trace,
    lease: scope.lease,
  }))
    scope.progress.say('saved', name, target as never);
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
