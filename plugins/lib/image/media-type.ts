/** Media types of what images are made of (OCI image-spec "media-types.md"; Docker image manifest version 2, schema 2), and the refs that its content has on the way in. */

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
export const DOCKER_INDEX = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';
export const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

const schema1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+(?:json|prettyjws)$/;
const layer =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+(?:gzip|zstd))?|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)(?:\+encrypted)?$/;
const foreign = /\.(?:nondistributable\.v1|rootfs\.foreign\.diff)\.tar/;

export const isIndex = (mediaType: string): boolean => mediaType === OCI_INDEX || mediaType === DOCKER_INDEX;
export const isManifest = (mediaType: string): boolean => mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST;
export const isConfig = (mediaType: string): boolean => mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG;
export const isLayer = (mediaType: string): boolean => layer.test(mediaType);
/** A layer that its owner does not want copied: it has no place in a registry, only URLs. */
export const isForeign = (mediaType: string): boolean => foreign.test(mediaType);
/** Manifests of Docker's first kind, which nobody should have to read any more. */
export const isSchema1 = (mediaType: string): boolean => schema1.test(mediaType);

/** The ref under which content is written while it comes: containerd's, so that its clients find what is on the way, and one goes on where the other stopped. */
export function refKey({ mediaType, digest }: { readonly mediaType: string; readonly digest: string }): string {
  if (isManifest(mediaType)) return `manifest-${digest}`;
  if (isIndex(mediaType)) return `index-${digest}`;
  if (isLayer(mediaType)) return `layer-${digest}`;
  return `${isConfig(mediaType) ? 'config' : 'unknown'}-${digest}`;
}

/** Labels by which collection follows a document to what it names: `.config`, `.l.N` for layers, `.m.N` for manifests, `.N` for anything else. */
export function childLabels(
  children: readonly { readonly mediaType: string; readonly digest: string }[],
): Record<string, string> {
  const labels: Record<string, string> = {};
  const counts = new Map<string, number>();
  for (const { mediaType, digest } of children) {
    const kind = isConfig(mediaType) ? 'config' : isManifest(mediaType) ? 'm.' : isLayer(mediaType) ? 'l.' : '';
    const count = counts.get(kind) ?? 0;
    counts.set(kind, count + 1);
    labels[`containerd.io/gc.ref.content.${kind}${kind === 'config' && count === 0 ? '' : count}`] = digest;
  }
  return labels;
}
