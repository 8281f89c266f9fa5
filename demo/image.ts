/** A small image of several layers, made of files of this machine with tar, so that what is unpacked is real. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

export interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly bytes: Buffer;
}

export interface Layer extends Blob {
  readonly what: string;
  readonly diffId: string;
  /** Bytes of the tar. */
  readonly rawSize: number;
}

export interface Image {
  readonly name: string;
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Layer[];
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

function blob(mediaType: string, bytes: Buffer): Blob {
  return { mediaType, digest: digestOf(bytes), size: bytes.length, bytes };
}

/** @param checkout the project's own folder, which becomes a layer */
export function buildImage(scratch: string, checkout: string): Image {
  const layers = [
    layer(scratch, 'busybox and an /etc', baseFiles),
    layer(scratch, 'sources of this project', (dir) => copySources(checkout, dir)),
    layer(scratch, 'libraries of this project', (dir) =>
      cpSync(join(checkout, 'node_modules', '@grpc'), join(dir, 'opt/lib'), { recursive: true }),
    ),
    layer(scratch, 'a greeting over the one below', (dir) => {
      mkdirSync(join(dir, 'etc'), { recursive: true });
      writeFileSync(join(dir, 'etc/motd'), 'Hello from a container that Troupe unpacked and started.\n');
      writeFileSync(join(dir, 'etc/.wh.gone'), '');
    }),
  ];
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const config = blob(
    'application/vnd.oci.image.config.v1+json',
    Buffer.from(
      JSON.stringify({
        architecture,
        os: 'linux',
        config: { Env: ['PATH=/bin'], Cmd: ['sh'] },
        rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      }),
    ),
  );
  const describe = ({ mediaType, digest, size }: Blob) => ({ mediaType, digest, size });
  const manifest = blob(
    'application/vnd.oci.image.manifest.v1+json',
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: describe(config),
        layers: layers.map(describe),
      }),
    ),
  );
  return { name: 'demo.test/troupe:latest', manifest, config, layers };
}

function layer(scratch: string, what: string, fill: (dir: string) => void): Layer {
  const dir = join(scratch, 'layer');
  mkdirSync(dir);
  fill(dir);
  const tar = execFileSync(
    'tar',
    ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '-C', dir, '-cf', '-', '.'],
    { maxBuffer: 1 << 30 },
  );
  execFileSync('rm', ['-rf', dir]);
  return {
    ...blob('application/vnd.oci.image.layer.v1.tar+gzip', gzipSync(tar, { level: 6 })),
    what,
    diffId: digestOf(tar),
    rawSize: tar.length,
  };
}

function baseFiles(dir: string): void {
  for (const sub of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'root']) mkdirSync(join(dir, sub));
  writeFileSync(join(dir, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(dir, 'etc/motd'), 'The layer above replaces this.\n');
  writeFileSync(join(dir, 'etc/gone'), 'The layer above hides this.\n');
  if (!existsSync('/bin/busybox')) return;
  copyFileSync('/bin/busybox', join(dir, 'bin/busybox'));
  for (const name of ['sh', 'cat', 'echo', 'ls', 'sleep', 'wc', 'find', 'hostname', 'id'])
    symlinkSync('busybox', join(dir, 'bin', name));
}

function copySources(checkout: string, dir: string): void {
  for (const folder of ['kernel', 'plugins', 'proto'])
    cpSync(join(checkout, folder), join(dir, 'src', folder), { recursive: true });
}
