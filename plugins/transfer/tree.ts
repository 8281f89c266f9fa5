/**
 * An image from its top document down to its blobs: which parts of it are wanted, and who brings them. The same walk serves pulls, where what is not there is
 * fetched, imports, exports and pushes, where it must be there.
 */
import { Failure } from 'troupe/plugin';
import { type Descriptor, type ImageConfig, type Manifest, parseConfig, parseDocument } from '../lib/image/document.ts';
import { isConfig, isIndex, isManifest } from '../lib/image/media-type.ts';
import { formatPlatform, type Platform, rank } from '../lib/image/platform.ts';

export interface Selection {
  /** Empty: all. */
  readonly platforms: readonly Platform[];
  /** Manifests and configs of the other platforms too. */
  readonly allMetadata: boolean;
  /** So many manifests of an index, the best matches; 0: all that match. */
  readonly manifestLimit: number;
}

export interface Visitor {
  /** The bytes of a manifest or index, which are there afterwards. */
  document(
    descriptor: Descriptor,
    parent: Descriptor | undefined,
    children: (bytes: Uint8Array) => readonly Descriptor[],
  ): Promise<Uint8Array>;
  /** The bytes of a config, likewise. */
  config(descriptor: Descriptor, parent: Descriptor): Promise<Uint8Array>;
  /** A manifest whose blobs are wanted. */
  image(image: Image): Promise<void>;
}

export interface Image {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
  /** Undefined for what is no image: its config is of a type of its own. */
  readonly config: ImageConfig | undefined;
}

/** Indexes in indexes: none that is meant needs more. */
const deepest = 8;
/** Documents of one tree. */
const most = 20_000;

/**
 * Visits what is wanted below `root`; documents that several name are visited once.
 *
 * @throws Failure NotFound when an index has nothing for the platforms, InvalidArgument for an index that does not end
 */
export async function walk(
  root: Descriptor,
  selection: Selection,
  visitor: Visitor,
  inParallel: (work: readonly (() => Promise<void>)[]) => Promise<void>,
): Promise<void> {
  const seen = new Set<string>();
  let images = 0;

  const visit = async (
    descriptor: Descriptor,
    parent: Descriptor | undefined,
    depth: number,
    metadataOnly: boolean,
  ): Promise<void> => {
    if (seen.has(descriptor.digest)) return;
    seen.add(descriptor.digest);
    if (depth > deepest) throw invalid(descriptor, `lies deeper than ${deepest} indexes`);
    if (seen.size > most) throw invalid(descriptor, `is one of more than ${most}`);
    const childrenOf = (bytes: Uint8Array): readonly Descriptor[] => {
      const document = parseDocument(bytes, descriptor);
      return document.kind === 'index' ? document.manifests : [document.config, ...document.layers];
    };
    const bytes = await visitor.document(descriptor, parent, childrenOf);
    const document = parseDocument(bytes, descriptor);
    if (document.kind === 'index') {
      const chosen = choose(document.manifests, selection);
      const wanted = new Set(chosen);
      const others = selection.allMetadata ? document.manifests.filter((child) => !wanted.has(child)) : [];
      await inParallel([
        ...chosen.map((child) => () => visit(child, descriptor, depth + 1, metadataOnly)),
        ...others.map((child) => () => visit(child, descriptor, depth + 1, true)),
      ]);
      return;
    }
    const config = isConfig(document.config.mediaType)
      ? parseConfig(await visitor.config(document.config, descriptor), document.config.digest)
      : undefined;
    if (metadataOnly) return;
    images++;
    await visitor.image({ descriptor, manifest: document, config });
  };

  await visit(root, undefined, 0, false);
  if (images === 0) {
    const names = selection.platforms.map(formatPlatform).join(', ');
    throw new Failure(
      'NotFound',
      `image ${root.digest}: no match for platform in manifest${names === '' ? '' : ` (${names})`}: not found`,
    );
  }
}

/** The children of an index that are wanted, in the order of preference where there is one. */
function choose(children: readonly Descriptor[], { platforms, manifestLimit }: Selection): Descriptor[] {
  const documents = children.filter(({ mediaType }) => isManifest(mediaType) || isIndex(mediaType));
  const ranked = documents
    // What says no platform may be for any.
    .map((child) => ({
      child,
      rank: child.platform === undefined || platforms.length === 0 ? 0 : rank(child.platform, platforms),
    }))
    .filter((each): each is { child: Descriptor; rank: number } => each.rank !== undefined);
  if (manifestLimit <= 0) return ranked.map(({ child }) => child);
  return ranked
    .sort((a, b) => a.rank - b.rank)
    .slice(0, manifestLimit)
    .map(({ child }) => child);
}

function invalid({ digest }: Descriptor, problem: string): Failure {
  return new Failure('InvalidArgument', `document ${digest}: ${problem}: invalid argument`);
}
