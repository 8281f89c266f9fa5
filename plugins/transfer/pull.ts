/**
 * Registry → image store. Documents come one after the other, since each says what is next; then every blob at once, within the limit, the large ones first,
 * and each layer is unpacked as soon as it is there, or while it comes.
 */
import type { PluginContext } from 'troupe/plugin';
import { Failure } from 'troupe/plugin';
import { type Descriptor, documentLimit } from '../lib/image/document.ts';
import { childLabels, isSchema1, refKey } from '../lib/image/media-type.ts';
import { type Platform, rank } from '../lib/image/platform.ts';
import { type BlobOptions, fetchBlob } from '../lib/registry/blob.ts';
import type { Registry, Resolved } from '../lib/registry/registry.ts';
import { formatReference } from '../lib/reference/reference.ts';
import type { Chunks, Labels } from './content.ts';
import type { Downloads } from './downloads.ts';
import type { Scope } from './scope.ts';
import { Slots, together } from './together.ts';
import { type Image, type Selection, type Visitor, walk } from './tree.ts';
import { unpackImage } from './unpack-image.ts';

export interface UnpackWish {
  /** Undefined: whatever comes. */
  readonly platform: Platform | undefined;
  readonly snapshotter: string;
}

export interface PullOptions {
  readonly selection: Selection;
  readonly unpacks: readonly UnpackWish[];
  readonly blobs: BlobOptions;
  readonly downloads: Downloads;
}

const documentsAtOnce = 8;

export type PullParts = Pick<PluginContext, 'exclusive' | 'call'>;

/** Brings and unpacks what the options ask for. @returns what the reference names */
export async function pull(
  ctx: PullParts,
  scope: Scope,
  registry: Registry,
  resolved: Resolved,
  options: PullOptions,
): Promise<Descriptor> {
  const root: Descriptor = { ...resolved, annotations: {}, platform: undefined, urls: [] };
  if (isSchema1(root.mediaType))
    throw new Failure('InvalidArgument', 'schema 1 image manifests are no longer supported: invalid argument');
  const fetcher = new Fetcher(ctx, scope, registry, resolved, options);
  await walk(root, options.selection, fetcher, (work) =>
    together(
      scope.signal,
      work.map((each) => () => each()),
    ),
  );
  return root;
}

class Fetcher implements Visitor {
  readonly #ctx: PullParts;
  readonly #scope: Scope;
  readonly #registry: Registry;
  readonly #resolved: Resolved;
  readonly #options: PullOptions;
  readonly #source: { readonly key: string; readonly repository: string };
  readonly #root: string;
  /** An index may name thousands. */
  readonly #documents = new Slots(documentsAtOnce);

  constructor(ctx: PullParts, scope: Scope, registry: Registry, resolved: Resolved, options: PullOptions) {
    const { hostname, repository } = registry.reference;
    this.#ctx = ctx;
    this.#scope = scope;
    this.#registry = registry;
    this.#resolved = resolved;
    this.#options = options;
    this.#source = { key: sourceLabel(hostname), repository };
    this.#root = formatReference(registry.reference);
  }

  async document(
    descriptor: Descriptor,
    parent: Descriptor | undefined,
    children: (bytes: Uint8Array) => readonly Descriptor[],
  ): Promise<Uint8Array> {
    const { bytes: known, digest } = this.#resolved;
    const fetch = (): Promise<Uint8Array> =>
      known !== undefined && digest === descriptor.digest
        ? Promise.resolve(known)
        : this.#registry.manifest(descriptor, this.#scope.signal);
    // Children are labelled all of them, also those that are not wanted now: they may come later.
    return this.#small(descriptor, parent, fetch, (bytes) => childLabels(children(bytes)));
  }

  config(descriptor: Descriptor, parent: Descriptor): Promise<Uint8Array> {
    const fetch = async (): Promise<Uint8Array> => {
      const { signal } = this.#scope;
      const all: (readonly Uint8Array[])[] = [];
      for await (const chunks of fetchBlob(this.#registry, descriptor, 0, this.#options.blobs, signal))
        all.push(chunks);
      return Buffer.concat(all.flat());
    };
    return this.#small(descriptor, parent, fetch, () => ({}));
  }

  async image(image: Image): Promise<void> {
    const { manifest, config, descriptor } = image;
    // Another type of config is a blob like the others.
    const blobs = config === undefined ? [manifest.config, ...manifest.layers] : manifest.layers;
    const fetchLayer = (layer: Descriptor, signal: AbortSignal, began?: () => void): Promise<void> =>
      this.#blob(layer, descriptor, signal, began);
    const wish =
      config &&
      this.#options.unpacks.find(
        ({ platform }) => platform === undefined || rank(config.platform, [platform]) !== undefined,
      );
    if (config !== undefined && wish !== undefined) {
      await unpackImage(this.#ctx, this.#scope, image.manifest, config, wish.snapshotter, fetchLayer);
      return;
    }
    await together(
      this.#scope.signal,
      largestFirst(blobs).map((layer) => (signal) => fetchLayer(layer, signal)),
    );
  }

  /** A document or config: read whole, checked before it is stored. */
  async #small(
    descriptor: Descriptor,
    parent: Descriptor | undefined,
    fetch: () => Promise<Uint8Array>,
    labelsOf: (bytes: Uint8Array) => Labels,
  ): Promise<Uint8Array> {
    const { content, progress, signal } = this.#scope;
    if (descriptor.size > documentLimit)
      throw new Failure(
        'InvalidArgument',
        `${refKey(descriptor)}: has ${descriptor.size} bytes, the limit is ${documentLimit}: invalid argument`,
      );
    progress.add(descriptor, parent, this.#root);
    await content.keep(descriptor.digest, signal);
    const current = await content.find(descriptor.digest, signal);
    if (current !== undefined) {
      const bytes = await content.read(descriptor, signal);
      await content.label(descriptor.digest, { ...labelsOf(bytes), ...this.#sourceLabel(current) }, signal);
      progress.update('already exists', descriptor, descriptor.size);
      return bytes;
    }
    const bytes = await this.#documents.use(signal, fetch);
    const labels = { ...labelsOf(bytes), ...this.#sourceLabel({}) };
    const came = await content.write(
      descriptor,
      { labels: () => labels, source: (offset) => piece(bytes.subarray(offset)), onProgress: () => {} },
      signal,
    );
    // Another transfer was faster.
    if (came === 'there') await content.label(descriptor.digest, labels, signal);
    progress.update('complete', descriptor, descriptor.size);
    return bytes;
  }

  async #blob(
    descriptor: Descriptor,
    parent: Descriptor,
    signal: AbortSignal,
    began: (() => void) | undefined,
  ): Promise<void> {
    const { progress } = this.#scope;
    progress.add(descriptor, parent, this.#root);
    // One of all that want it fetches it; for the others it is there, or partly there, when their turn comes.
    await this.#ctx.exclusive(`fetch:${descriptor.digest}`, () => this.#fetchBlob(descriptor, signal, began), signal);
  }

  async #fetchBlob(descriptor: Descriptor, signal: AbortSignal, began: (() => void) | undefined): Promise<void> {
    const { content, progress } = this.#scope;
    await content.keep(descriptor.digest, signal);
    const current = await content.find(descriptor.digest, signal);
    if (current !== undefined) {
      await content.label(descriptor.digest, this.#sourceLabel(current), signal);
      progress.update('already exists', descriptor, descriptor.size);
      return;
    }
    await this.#options.downloads.use(signal, async (received) => {
      const came = await content.write(
        descriptor,
        {
          labels: () => this.#sourceLabel({}),
          source: (offset, stop) =>
            lent(fetchBlob(this.#registry, descriptor, offset, this.#options.blobs, stop), received),
          onProgress: (offset) => {
            progress.update('downloading', descriptor, offset);
            if (offset > 0) began?.();
          },
        },
        signal,
      );
      if (came === 'there') await content.label(descriptor.digest, this.#sourceLabel({}), signal);
    });
    progress.update('complete', descriptor, descriptor.size);
  }

  /** Where it can be had again: repositories of a registry, after those that are noted already. Pushes mount from there. */
  #sourceLabel(current: Labels): Labels {
    const { key, repository } = this.#source;
    const noted = (current[key] ?? '').split(',').filter((each) => each !== '');
    const all = [...noted.filter((each) => each !== repository), repository].join(',');
    return noted.includes(repository) || all.length + key.length > 4096 ? {} : { [key]: all };
  }
}

/** The label of a blob that says in which repositories of a registry it is; without the port, as containerd writes it. */
export function sourceLabel(hostname: string): string {
  return `containerd.io/distribution.source.${hostname.replace(/:\d+$/, '')}`;
}

export function largestFirst(blobs: readonly Descriptor[]): Descriptor[] {
  return blobs.toSorted((a, b) => b.size - a.size);
}

/**
 * Chunks are good until the next are asked for, and then their memory is free at once. Left to the collector, the buffers of a GB have it mark the heap some
 * hundred times, since all it sees of them is how fast they become more; that was an eighth of the processor time of a pull.
 */
async function* lent(
  source: Chunks,
  received: (bytes: number) => void,
): AsyncGenerator<readonly Uint8Array[], void, undefined> {
  for await (const chunks of source) {
    for (const { length } of chunks) received(length);
    yield chunks;
    for (const { buffer, byteLength } of chunks)
      if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
  }
}

async function* piece(bytes: Uint8Array): AsyncGenerator<readonly Uint8Array[], void, undefined> {
  if (bytes.length > 0) yield [bytes];
}
