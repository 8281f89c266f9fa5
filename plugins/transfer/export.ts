/** Content → archive: an OCI layout that `docker load` reads as well. The same images give the same bytes: entries in the order of their names, no times. */
import { Failure } from 'troupe/plugin';
import type { Image } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { digestAlgorithm, digestHex, parseDigest } from '../lib/digest/digest.ts';
import { type Descriptor, parseDocument } from '../lib/image/document.ts';
import { isForeign, isIndex, isManifest, OCI_INDEX } from '../lib/image/media-type.ts';
import { type Platform, rank } from '../lib/image/platform.ts';
import { encodeHeader, endOfArchive, padding } from '../lib/tar/writer.ts';
import { IMAGE_NAME, REF_NAME, tagOf } from './docker-archive.ts';
import type { Scope } from './scope.ts';
import { partsOf } from './stored.ts';

export interface ExportOptions {
  /** Empty: all that the images list. */
  readonly platforms: readonly Platform[];
  /** Leave manifest.json out. */
  readonly skipCompatibility: boolean;
  readonly skipForeign: boolean;
}

/** @throws Failure NotFound for content that is not here */
export async function* exportArchive(
  scope: Scope,
  images: readonly Image[],
  options: ExportOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const selection = { platforms: options.platforms, allMetadata: false, manifestLimit: 0 };
  const parts = new Map<string, Descriptor>();
  const names: object[] = [];
  const docker: object[] = [];
  for (const image of images) {
    const target = targetOf(image);
    for (const part of await partsOf(scope, target, selection))
      if (!(options.skipForeign && isForeign(part.mediaType))) parts.set(part.digest, part);
    const { mediaType, digest, size } = target;
    const annotations = { ...image.target?.annotations, [IMAGE_NAME]: image.name, [REF_NAME]: refName(image.name) };
    names.push({ mediaType, digest, size, annotations });
    const compatible = options.skipCompatibility
      ? undefined
      : await dockerEntry(scope, target, image.name, options.platforms);
    if (compatible !== undefined) docker.push(compatible);
  }
  const algorithms = new Set([...parts.keys()].map((digest) => digestAlgorithm(parseDigest(digest))));
  yield directory('blobs/');
  for (const algorithm of [...algorithms].sort()) {
    yield directory(`blobs/${algorithm}/`);
    const own = [...parts.values()].filter(({ digest }) => digestAlgorithm(digest) === algorithm);
    for (const part of own.sort((a, b) => (a.digest < b.digest ? -1 : 1))) yield* blob(scope, part);
  }
  yield* file('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: names })));
  if (docker.length > 0) yield* file('manifest.json', Buffer.from(JSON.stringify(docker)));
  yield* file('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  yield endOfArchive;
}

export function targetOf(image: Image): Descriptor {
  const { mediaType = '', digest = '', size = 0n, annotations = {} } = image.target ?? {};
  return { mediaType, digest: parseDigest(digest), size: Number(size), annotations, platform: undefined, urls: [] };
}

/** What `docker load` goes by: one platform of each image, the first that fits. */
async function dockerEntry(
  scope: Scope,
  target: Descriptor,
  name: string,
  platforms: readonly Platform[],
): Promise<object | undefined> {
  const read = async (descriptor: Descriptor) =>
    parseDocument(await scope.content.read(descriptor, scope.signal), descriptor);
  let document = await read(target);
  if (document.kind === 'index') {
    const manifests = document.manifests.filter(({ mediaType }) => isManifest(mediaType) && !isIndex(mediaType));
    const chosen =
      platforms.length === 0
        ? manifests.length === 1
          ? manifests[0]
          : undefined
        : manifests
            .map((each) => ({ each, rank: each.platform === undefined ? 0 : rank(each.platform, platforms) }))
            .filter((each): each is { each: Descriptor; rank: number } => each.rank !== undefined)
            .sort((a, b) => a.rank - b.rank)[0]?.each;
    if (chosen === undefined) return undefined;
    document = await read(chosen);
  }
  if (document.kind !== 'manifest') return undefined;
  const path = ({ digest }: Descriptor): string => pathOf(digest);
  return { Config: path(document.config), RepoTags: hasTag(name) ? [name] : null, Layers: document.layers.map(path) };
}

function hasTag(name: string): boolean {
  return /:[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name) && !name.includes('@');
}

function refName(name: string): string {
  try {
    return tagOf(name) || name;
  } catch {
    // A name that is no reference, which an image may have.
    return name;
  }
}

function pathOf(digest: Descriptor['digest']): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

async function* blob(scope: Scope, { digest, size }: Descriptor): AsyncGenerator<Uint8Array, void, undefined> {
  yield header(pathOf(digest), size);
  let given = 0;
  for await (const chunk of scope.content.bytes(digest, 0, scope.signal)) {
    given += chunk.length;
    yield chunk;
  }
  if (given !== size) throw new Failure('DataLoss', `content ${digest}: has ${given} bytes, not ${size}: data loss`);
  yield padding(size);
}

async function* file(name: string, bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield header(name, bytes.length);
  yield bytes;
  yield padding(bytes.length);
}

const epoch = { seconds: 0, nanoseconds: 0 };

function header(name: string, size: number): Uint8Array {
  return encodeHeader({ type: 'file', name: Buffer.from(name), size, mode: 0o444, mtime: epoch as never });
}

function directory(name: string): Uint8Array {
  return encodeHeader({ type: 'directory', name: Buffer.from(name), mode: 0o755, mtime: epoch as never });
}
