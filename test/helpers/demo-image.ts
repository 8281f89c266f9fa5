/** Images of layers that tests craft byte by byte, in the form that the demo's client imports and unpacks. */
import { gzipSync } from 'node:zlib';
import type { Blob, Image } from '../../demo/image.ts';
import { sha256 } from './image.ts';

/** @param layers tar archives, bottom first */
export function imageOf(name: string, layers: readonly Buffer[]): Image {
  const blob = (mediaType: string, bytes: Buffer): Blob => ({
    mediaType,
    digest: sha256(bytes),
    size: bytes.length,
    bytes,
  });
  const json = (mediaType: string, value: object): Blob => blob(mediaType, Buffer.from(JSON.stringify(value)));
  const described = ({ mediaType, digest, size }: Blob) => ({ mediaType, digest, size });
  const packed = layers.map((tar, index) => ({
    ...blob('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(tar)),
    what: `layer ${index}`,
    diffId: sha256(tar),
    rawSize: tar.length,
  }));
  const config = json('application/vnd.oci.image.config.v1+json', {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: packed.map(({ diffId }) => diffId) },
  });
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = json(mediaType, {
    schemaVersion: 2,
    mediaType,
    config: described(config),
    layers: packed.map(described),
  });
  return { name, manifest, config, layers: packed };
}
