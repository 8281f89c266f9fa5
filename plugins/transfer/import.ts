/**
 * Archive → content: an OCI layout, or what `docker save` writes, or both in one file. Blobs are stored as they come, before anything says what they are
 * for: the documents that name them stand at the end as often as at the beginning.
 */
import { randomBytes } from 'node:crypto';
import { Failure } from 'troupe/plugin';
import { decompress } from '../lib/compression/decompress.ts';
import { detectCompression, MAGIC_BYTES } from '../lib/compression/format.ts';
import { Digester, digestAlgorithm, digestOf, isDigest } from '../lib/digest/digest.ts';
import { type Descriptor, documentLimit, parseDocument } from '../lib/image/document.ts';
import { OCI_INDEX } from '../lib/image/media-type.ts';
import { archiveEntries, type ArchiveEntry } from './archive-entries.ts';
import { invalid, layersToStore, storeDocument, type StoredFile, type StoredFiles } from './archive-content.ts';
import { dockerManifests } from './docker-archive.ts';
import type { Chunks } from './content.ts';
import type { Scope } from './scope.ts';

/** Documents of the archive itself. */
const documentNames = ['oci-layout', 'index.json', 'manifest.json'];
const largestDocument = 20 << 20;
/** What docker's first archives have beside each layer, and nobody reads. */
const ignored = /(?:^|\/)(?:VERSION|json|repositories)$/;

/**
 * @param forceCompress plain layers of docker's archives are stored compressed; those of an OCI layout have a manifest already, which says what they are
 * @returns the index of the archive, which is content, and what it names. @throws Failure InvalidArgument
 */
export async function importArchive(
  scope: Scope,
  archive: AsyncIterable<Uint8Array>,
  forceCompress: boolean,
): Promise<{ index: Descriptor; manifests: readonly Descriptor[] }> {
  const { bytes } = await decompress(archive, 'archive of images');
  const files = new Map<string, StoredFile>();
  const links = new Map<string, string>();
  const documents = new Map<string, Uint8Array>();
  for await (const entry of archiveEntries(bytes)) {
    const { header } = entry;
    const name = plainName(header.name.toString('latin1'));
    if (header.type === 'directory' || header.type === 'global') continue;
    if (header.type === 'symlink' || header.type === 'hardlink') {
      links.set(name, targetOf(name, header.linkName.toString('latin1'), header.type === 'symlink'));
      continue;
    }
    if (header.type !== 'file') throw invalid(`${JSON.stringify(name)} is a ${header.type}, not a file`);
    if (documentNames.includes(name)) documents.set(name, await readDocument(name, entry));
    else if (name.startsWith('blobs/')) await storeBlob(scope, name, entry, files);
    else if (!ignored.test(name)) files.set(name, await storeFile(scope, entry));
  }
  return indexOf(scope, documents, { get: (name) => follow(name, files, links) }, forceCompress);
}

async function indexOf(
  scope: Scope,
  documents: ReadonlyMap<string, Uint8Array>,
  files: StoredFiles,
  forceCompress: boolean,
): Promise<{ index: Descriptor; manifests: readonly Descriptor[] }> {
  const given = documents.get('index.json');
  const docker = documents.get('manifest.json');
  let bytes: Uint8Array;
  if (documents.has('oci-layout')) {
    if (given === undefined) throw invalid('has an oci-layout and no index.json');
    bytes = given;
  } else if (docker !== undefined) {
    const manifests = await dockerManifests(scope, docker, files, layersToStore(scope, forceCompress));
    bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  } else throw invalid('has neither an oci-layout nor a manifest.json');
  const digest = digestOf(bytes);
  const index: Descriptor = {
    mediaType: OCI_INDEX,
    digest,
    size: bytes.length,
    annotations: {},
    platform: undefined,
    urls: [],
  };
  const document = parseDocument(bytes, index);
  if (document.kind !== 'index') throw invalid('its index.json is no index');
  await storeDocument(scope, index, bytes, document.manifests);
  return { index, manifests: document.manifests };
}

/** A blob says in its name what it is, and has to be it. */
async function storeBlob(
  scope: Scope,
  name: string,
  { header, bytes }: ArchiveEntry,
  files: Map<string, StoredFile>,
): Promise<void> {
  const digest = name.slice('blobs/'.length).replace('/', ':');
  if (!isDigest(digest)) throw invalid(`${JSON.stringify(name)} has no digest in its name`);
  const { size } = header;
  const digester = new Digester(digestAlgorithm(digest));
  const hashed = async function* (from: number): AsyncGenerator<readonly Uint8Array[], void, undefined> {
    for await (const chunk of bytes) {
      const before = digester.size;
      digester.update(chunk);
      if (digester.size > from) yield [before >= from ? chunk : chunk.subarray(from - before)];
    }
  };
  let stored = false;
  // What the store gets all of, it checks. What it had already, or a part of it, is good; whether the archive is, is another question.
  const source = (offset: number): Chunks => {
    stored = offset === 0;
    return stored ? oneByOne(bytes) : hashed(offset);
  };
  const known = await scope.content.find(digest, scope.signal);
  if (known === undefined)
    await scope.content.write(
      { mediaType: '', digest, size },
      { labels: () => ({}), source, onProgress: () => {}, once: true },
      scope.signal,
    );
  else await scope.content.keep(digest, scope.signal);
  if (!stored) {
    for await (const _ of hashed(Number.POSITIVE_INFINITY));
    if (digester.digest() !== digest)
      throw new Failure(
        'FailedPrecondition',
        `archive of images: ${name} has digest ${digester.digest()}: failed precondition`,
      );
  }
  files.set(name, { digest, size, compressed: false, bytes: undefined });
}

async function* oneByOne(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Uint8Array[], void, undefined> {
  for await (const chunk of bytes) yield [chunk];
}

async function storeFile(scope: Scope, { header, bytes }: ArchiveEntry): Promise<StoredFile> {
  const { size } = header;
  const small = size <= documentLimit ? Buffer.alloc(size) : undefined;
  const magic = Buffer.alloc(Math.min(MAGIC_BYTES, size));
  let at = 0;
  const watched = async function* (): AsyncGenerator<readonly Uint8Array[], void, undefined> {
    for await (const chunk of bytes) {
      small?.set(chunk, at);
      if (at < magic.length) magic.set(chunk.subarray(0, magic.length - at), at);
      at += chunk.length;
      yield [chunk];
    }
  };
  const ref = `import-${randomBytes(12).toString('hex')}`;
  const digest = await scope.content.writeUnknown(ref, size, watched(), scope.signal);
  return { digest, size, compressed: detectCompression(magic) !== 'none', bytes: small };
}

async function readDocument(name: string, { header, bytes }: ArchiveEntry): Promise<Uint8Array> {
  if (header.size > largestDocument) throw invalid(`${name} has ${header.size} bytes, the limit is ${largestDocument}`);
  const chunks: Uint8Array[] = [];
  // Views of memory that is lent until the next one.
  for await (const chunk of bytes) chunks.push(new Uint8Array(chunk));
  return Buffer.concat(chunks);
}

/** Names of an archive are keys here and never paths; one that climbs is refused all the same, since it means nothing good. */
function plainName(name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (name.startsWith('/') || parts.includes('..'))
    throw invalid(`${JSON.stringify(name.slice(0, 200))} lies outside of it`);
  return parts.join('/');
}

function targetOf(name: string, link: string, relative: boolean): string {
  if (link.startsWith('/'))
    throw invalid(`${JSON.stringify(name)} links to ${JSON.stringify(link.slice(0, 200))}, outside of it`);
  const parts = relative ? name.split('/').slice(0, -1) : [];
  for (const part of link.split('/')) {
    if (part === '..') {
      if (parts.pop() === undefined)
        throw invalid(`${JSON.stringify(name)} links to ${JSON.stringify(link.slice(0, 200))}, outside of it`);
    } else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.join('/');
}

function follow(
  name: string,
  files: ReadonlyMap<string, StoredFile>,
  links: ReadonlyMap<string, string>,
): StoredFile | undefined {
  let at = plainName(name);
  // A link to a link to a link is a loop.
  for (let hops = 0; hops < 8; hops++) {
    const found = files.get(at);
    if (found !== undefined) return found;
    const next = links.get(at);
    if (next === undefined) return undefined;
    at = next;
  }
  return undefined;
}
