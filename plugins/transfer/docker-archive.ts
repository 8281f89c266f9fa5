/** What `docker save` writes: manifest.json names configs, layers and tags of images, of which manifests are made here (moby, image/spec "combined image JSON"). */
import { digestOf } from '../lib/digest/digest.ts';
import { type Descriptor, parseConfig } from '../lib/image/document.ts';
import { DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST } from '../lib/image/media-type.ts';
import { normalize } from '../lib/image/platform.ts';
import { parseStrict } from '../lib/image/strict-json.ts';
import { parseReference } from '../lib/reference/reference.ts';
import { invalid, storeDocument, type StoredFile, type StoredFiles } from './archive-content.ts';
import type { Scope } from './scope.ts';

export const IMAGE_NAME = 'io.containerd.image.name';
export const REF_NAME = 'org.opencontainers.image.ref.name';

const largest = 20 << 20;
const mostImages = 1000;
const mostTags = 10_000;

/**
 * Descriptors for an index: each image once without a name when it has none, else once for each.
 *
 * @param toStore what a layer is stored as, given what it is in the archive
 */
export async function dockerManifests(
  scope: Scope,
  document: Uint8Array,
  files: StoredFiles,
  toStore: (layer: StoredFile) => Promise<StoredFile>,
): Promise<object[]> {
  const images = parseStrict(document, {
    what: 'manifest.json',
    limit: largest,
    known: { '': ['Config', 'Layers', 'RepoTags'] },
  });
  if (!Array.isArray(images) || images.length === 0 || images.length > mostImages)
    throw invalid(`its manifest.json does not name 1 to ${mostImages} images`);
  const descriptors: object[] = [];
  for (const image of images) {
    const {
      Config: config,
      Layers: layers,
      RepoTags: tags,
    } = (image ?? {}) as { Config?: unknown; Layers?: unknown; RepoTags?: unknown };
    if (typeof config !== 'string') throw invalid('an image of its manifest.json has no Config');
    const manifest = await makeManifest(scope, config, texts(layers, 'Layers'), files, toStore);
    const names = texts(tags ?? [], 'RepoTags').map(normalizeName);
    if (descriptors.length + names.length > mostTags) throw invalid(`its manifest.json has more than ${mostTags} tags`);
    if (names.length === 0) descriptors.push(manifest);
    for (const name of names)
      descriptors.push({ ...manifest, annotations: { [IMAGE_NAME]: name, [REF_NAME]: tagOf(name) } });
  }
  return descriptors;
}

async function makeManifest(
  scope: Scope,
  configName: string,
  layerNames: readonly string[],
  files: StoredFiles,
  toStore: (layer: StoredFile) => Promise<StoredFile>,
): Promise<object> {
  const need = (name: string): StoredFile => {
    const found = files.get(name);
    if (found === undefined)
      throw invalid(`its manifest.json names ${JSON.stringify(name.slice(0, 200))}, which is not in it`);
    return found;
  };
  const config = need(configName);
  if (config.bytes === undefined)
    throw invalid(`${JSON.stringify(configName.slice(0, 200))} is too large for a config`);
  const { platform } = parseConfig(config.bytes, config.digest);
  const { os, architecture, variant } = normalize(platform);
  const children: Descriptor[] = [];
  const describe = (
    mediaType: string,
    { digest, size }: StoredFile,
  ): { mediaType: string; digest: string; size: number } => {
    children.push({ mediaType, digest, size, annotations: {}, platform: undefined, urls: [] });
    return { mediaType, digest, size };
  };
  const layers: StoredFile[] = [];
  for (const name of layerNames) layers.push(await toStore(need(name)));
  const manifest = {
    schemaVersion: 2,
    mediaType: DOCKER_MANIFEST,
    config: describe(DOCKER_CONFIG, config),
    layers: layers.map((layer) => describe(layer.compressed ? `${DOCKER_LAYER}.gzip` : DOCKER_LAYER, layer)),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const descriptor = { mediaType: DOCKER_MANIFEST, digest: digestOf(bytes), size: bytes.length };
  await storeDocument(scope, descriptor, bytes, children);
  return { ...descriptor, platform: { architecture, os, ...(variant !== '' && { variant }) } };
}

function texts(value: unknown, what: string): string[] {
  if (!Array.isArray(value) || value.length > mostTags || value.some((each) => typeof each !== 'string'))
    throw invalid(`${what} in its manifest.json is not a list of texts`);
  return value as string[];
}

/** docker's short names in full: `busybox` is docker.io/library/busybox:latest. @throws Failure InvalidArgument for what is no reference */
export function normalizeName(name: string): string {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const hasHost = first.includes('.') || first.includes(':') || first === 'localhost';
  const full = hasHost ? name : `docker.io/${slash < 0 ? 'library/' : ''}${name}`;
  const reference = parseReference(full);
  return reference.tag === undefined && reference.digest === undefined ? `${full}:latest` : full;
}

export function tagOf(name: string): string {
  const { tag, digest } = parseReference(name);
  return tag ?? digest ?? '';
}
