/** Media types of layers, as images name them (OCI image-spec "media-types.md"; Docker image manifest version 2, schema 2). */
import { Failure } from 'troupe/plugin';
import type { Compression } from '../lib/compression/format.ts';

export const LAYER = 'application/vnd.oci.image.layer.v1.tar';

const layers = new Map<string, Compression>([
  [LAYER, 'none'],
  [`${LAYER}+gzip`, 'gzip'],
  [`${LAYER}+zstd`, 'zstd'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.foreign.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'gzip'],
]);

/**
 * Whether something of this type can be unpacked. How it is compressed is told by its bytes, since registries hold layers whose type says otherwise.
 *
 * @throws Failure Unimplemented for anything that is no layer, or one that has to be decrypted first
 */
export function requireLayer(mediaType: string): void {
  if (!layers.has(mediaType)) throw unsupported('no processor for media-type', mediaType);
}

/** How a diff of this type is compressed; empty means gzip, as what images have always had. */
export function diffType(mediaType: string): { mediaType: string; compression: Compression } {
  const asked = mediaType === '' ? `${LAYER}+gzip` : mediaType;
  const compression = layers.get(asked);
  if (compression === undefined) throw unsupported('unsupported diff media type', asked);
  return { mediaType: asked, compression };
}

function unsupported(what: string, mediaType: string): Failure {
  return new Failure('Unimplemented', `${what} ${JSON.stringify(mediaType.slice(0, 200))}: not implemented`);
}
