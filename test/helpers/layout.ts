/** Images of layers whose bytes are there already, also of such that lie about themselves. */
import { type Descriptor, type Layout, sha256 } from './image.ts';

export interface GivenLayer {
  readonly bytes: Buffer;
  /** Default: a tar archive that is not compressed. */
  readonly mediaType?: string;
  /** What the config says of its contents; default: the digest of the bytes. */
  readonly diffId?: string;
  /** What the manifest says; default: what is true. */
  readonly size?: number;
  readonly digest?: string;
  /** Whether the archive lacks it. */
  readonly missing?: boolean;
}

export function layoutOf(
  layers: readonly GivenLayer[],
  change: { readonly config?: 'missing' | 'garbage' } = {},
): Layout {
  const blobs = new Map<string, Buffer>();
  const put = (mediaType: string, bytes: Buffer): Descriptor => {
    blobs.set(sha256(bytes), bytes);
    return { mediaType, digest: sha256(bytes), size: bytes.length };
  };
  const json = (mediaType: string, value: unknown): Descriptor => put(mediaType, Buffer.from(JSON.stringify(value)));
  const descriptors = layers.map(({ bytes, mediaType, size, digest, missing }) => {
    const described = put(mediaType ?? 'application/vnd.oci.image.layer.v1.tar', bytes);
    if (missing === true || digest !== undefined) blobs.delete(described.digest);
    if (digest !== undefined) blobs.set(digest, bytes);
    return { ...described, digest: digest ?? described.digest, size: size ?? described.size };
  });
  const configType = 'application/vnd.oci.image.config.v1+json';
  const config =
    change.config === 'garbage'
      ? put(configType, Buffer.from('no JSON'))
      : json(configType, {
          architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
          os: 'linux',
          rootfs: { type: 'layers', diff_ids: layers.map(({ bytes, diffId }) => diffId ?? sha256(bytes)) },
        });
  if (change.config === 'missing') blobs.delete(config.digest);
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const target = json(mediaType, { schemaVersion: 2, mediaType, config, layers: descriptors });
  return { blobs, target, layers: [], chainIds: [] };
}
