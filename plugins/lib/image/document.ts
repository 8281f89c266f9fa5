/**
 * Manifests, indexes and configs: read from outside, so each is either what its descriptor says or refused. What a document is called by its descriptor, by
 * itself and by its own fields must be one (CVE-2021-41190: a document that is a manifest to one reader and an index to another).
 */
import { Failure } from 'troupe/plugin';
import { type Digest, digestOf, digestAlgorithm, digestProblem } from '../digest/digest.ts';
import { isConfig, isIndex, isLayer, isManifest, isSchema1 } from './media-type.ts';
import type { Platform } from './platform.ts';
import { parseStrict } from './strict-json.ts';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
  readonly platform: Platform | undefined;
  readonly urls: readonly string[];
}

export interface Manifest {
  readonly kind: 'manifest';
  readonly config: Descriptor;
  /** Bottom first. */
  readonly layers: readonly Descriptor[];
}

export interface Index {
  readonly kind: 'index';
  readonly manifests: readonly Descriptor[];
}

/** What a config says that unpacking needs. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly diffIds: readonly Digest[];
}

/** Bytes: containerd's limit is 4 MiB too, and no registry takes more. */
export const documentLimit = 4 << 20;
const mostLayers = 1000;
const mostManifests = 10_000;

const descriptorKeys = ['mediaType', 'digest', 'size', 'annotations', 'platform', 'urls', 'data'];
const platformKeys = ['architecture', 'os', 'variant', 'os.version', 'os.features'];
const known = {
  '': ['schemaVersion', 'mediaType', 'config', 'layers', 'manifests', 'fsLayers', 'subject', 'annotations'],
  config: descriptorKeys,
  layers: descriptorKeys,
  manifests: descriptorKeys,
  subject: descriptorKeys,
  'manifests.platform': platformKeys,
};
const configKeys = { '': ['architecture', 'os', 'variant', 'rootfs'], rootfs: ['type', 'diff_ids'] };

/** @throws Failure FailedPrecondition when the bytes are not what the descriptor names */
export function requireBytes(bytes: Uint8Array, { digest, size }: Pick<Descriptor, 'digest' | 'size'>): void {
  const found = digestOf(bytes, digestAlgorithm(digest));
  if (bytes.length === size && found === digest) return;
  throw new Failure(
    'FailedPrecondition',
    `content ${digest}: ${bytes.length} bytes of digest ${found} came, not ${size}: failed precondition`,
  );
}

/** @throws Failure InvalidArgument naming the document and what is wrong with it */
export function parseDocument(
  bytes: Uint8Array,
  { digest, mediaType }: Pick<Descriptor, 'digest' | 'mediaType'>,
): Manifest | Index {
  const what = `${isIndex(mediaType) ? 'index' : 'manifest'} ${digest}`;
  const refuse = (problem: string): Failure => new Failure('InvalidArgument', `${what}: ${problem}: invalid argument`);
  if (isSchema1(mediaType)) throw refuse('schema 1 image manifests are no longer supported');
  const document = record(parseStrict(bytes, { what, limit: documentLimit, known }), () => refuse('is not an object'));
  if (document.schemaVersion === 1 || document.fsLayers !== undefined)
    throw refuse('schema 1 image manifests are no longer supported');
  const own = document.mediaType;
  if (own !== undefined && own !== mediaType)
    throw refuse(`says that it is ${show(own)}, and was announced as ${show(mediaType)}`);
  // Nothing here follows it; whoever does must find a descriptor.
  if (document.subject !== undefined && document.subject !== null)
    parseDescriptor(document.subject, `${what}: subject`);
  const list = (name: string, most: number): Descriptor[] => {
    const items = document[name] ?? [];
    if (!Array.isArray(items)) throw refuse(`its ${name} is not a list`);
    if (items.length > most) throw refuse(`has ${items.length} ${name}, the limit is ${most}`);
    return items.map((item, at) => parseDescriptor(item, `${what}: ${name}[${at}]`));
  };
  if (isIndex(mediaType)) {
    if (document.layers !== undefined || document.config !== undefined)
      throw refuse('is an index and has layers or a config, as a manifest has');
    if (!Array.isArray(document.manifests)) throw refuse('has no manifests');
    return { kind: 'index', manifests: list('manifests', mostManifests) };
  }
  if (!isManifest(mediaType)) throw refuse(`is of type ${show(mediaType)}, not a manifest or an index`);
  if (document.manifests !== undefined) throw refuse('is a manifest and has manifests, as an index has');
  if (document.config === undefined) throw refuse('has no config');
  const config = parseDescriptor(document.config, `${what}: config`);
  const layers = list('layers', mostLayers);
  if (isLayer(config.mediaType)) throw refuse('its config is a layer');
  const odd = layers.find(({ mediaType }) => isManifest(mediaType) || isIndex(mediaType) || isConfig(mediaType));
  if (odd !== undefined) throw refuse(`one of its layers is of type ${show(odd.mediaType)}`);
  return { kind: 'manifest', config, layers };
}

/** @throws Failure InvalidArgument */
export function parseConfig(bytes: Uint8Array, digest: string): ImageConfig {
  const what = `config ${digest}`;
  const refuse = (problem: string): Failure => new Failure('InvalidArgument', `${what}: ${problem}: invalid argument`);
  const config = record(parseStrict(bytes, { what, limit: documentLimit, known: configKeys }), () =>
    refuse('is not an object'),
  );
  const rootfs = record(config.rootfs ?? {}, () => refuse('its rootfs is not an object'));
  const diffIds = rootfs.diff_ids ?? [];
  if (!Array.isArray(diffIds)) throw refuse('its diff_ids are not a list');
  return {
    platform: {
      os: string(config.os, () => refuse('its os is not a text')),
      architecture: string(config.architecture, () => refuse('its architecture is not a text')),
      variant: string(config.variant, () => refuse('its variant is not a text')),
    },
    diffIds: diffIds.map((item: unknown) => digestText(item, () => refuse('a diff_id is not a digest'))),
  };
}

/** @param where for messages */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  const refuse = (problem: string): Failure => new Failure('InvalidArgument', `${where}: ${problem}: invalid argument`);
  const fields = record(value, () => refuse('is not a descriptor'));
  const size = fields.size;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw refuse(`its size is ${show(size)}`);
  const mediaType = string(fields.mediaType, () => refuse('its mediaType is not a text'));
  if (mediaType === '' || mediaType.length > 255) throw refuse('has no mediaType');
  const { platform, annotations, urls } = fields;
  const given =
    platform === undefined || platform === null
      ? undefined
      : record(platform, () => refuse('its platform is not an object'));
  const part = (name: string): string => string(given?.[name], () => refuse(`its ${name} is not a text`));
  const digest = digestText(fields.digest, (problem) => refuse(`its digest ${show(fields.digest)}: ${problem}`));
  // Not used either, but some take it for the content: two contents under one digest are refused.
  const { data } = fields;
  if (data !== undefined && data !== null) {
    const bytes = Buffer.from(typeof data === 'string' ? data : '', 'base64');
    if (typeof data !== 'string' || bytes.length !== size || digestOf(bytes, digestAlgorithm(digest)) !== digest)
      throw refuse('its data is not what its digest and size say');
  }
  return {
    mediaType,
    digest,
    size,
    annotations: texts(annotations, () => refuse('its annotations are not texts')),
    platform:
      given === undefined
        ? undefined
        : { os: part('os'), architecture: part('architecture'), variant: part('variant') },
    urls: Array.isArray(urls) ? urls.filter((url): url is string => typeof url === 'string') : [],
  };
}

function digestText(value: unknown, refuse: (problem: string) => Failure): Digest {
  const problem = typeof value === 'string' ? digestProblem(value) : 'not a text';
  if (problem !== undefined) throw refuse(problem);
  return value as Digest;
}

function record(value: unknown, refuse: () => Failure): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse();
  return value as Record<string, unknown>;
}

function string(value: unknown, refuse: () => Failure): string {
  if (value === undefined || value === null) return '';
  if (typeof value !== 'string' || value.length > 1024) throw refuse();
  return value;
}

function texts(value: unknown, refuse: () => Failure): Record<string, string> {
  if (value === undefined || value === null) return {};
  const entries = Object.entries(record(value, refuse));
  if (entries.length > 1000 || entries.some(([, each]) => typeof each !== 'string')) throw refuse();
  return Object.fromEntries(entries) as Record<string, string>;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
