/**
 * Images made of real files with real tools (GNU tar, zlib), as archives that `ctr images import` takes. Shares no code with the daemon.
 * Deterministic: the same description gives the same digests.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';

export type Compression = 'gzip' | 'zstd' | 'none';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly os: string; readonly architecture: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface LayerBlob {
  readonly descriptor: Descriptor;
  readonly diffId: string;
  readonly bytes: Buffer;
}

export interface ImageOptions {
  readonly name?: string;
  readonly compression?: Compression;
  /** What the layers are said to be; default what they are. */
  readonly layerType?: string;
  /** Fills one layer's directory; called in order. */
  readonly layers?: readonly ((dir: string) => void)[];
  readonly platforms?: readonly string[];
  readonly config?: Readonly<Record<string, unknown>>;
}

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** busybox with its usual names, and the files that a container expects: what `ctr run IMG ID sh` needs. */
export function busyboxLayer(dir: string): void {
  mkdirSync(join(dir, 'bin'), { recursive: true });
  copyFileSync('/bin/busybox', join(dir, 'bin/busybox'));
  const applets = [
    'sh',
    'cat',
    'echo',
    'ls',
    'sleep',
    'true',
    'false',
    'kill',
    'id',
    'env',
    'pwd',
    'head',
    'dd',
    'test',
    'printf',
    'touch',
    'stat',
    'mount',
    'ps',
    'yes',
    'seq',
    'stty',
    'tty',
    'trap',
    'wc',
    'mkdir',
    'rm',
    'hostname',
    'grep',
  ];
  for (const applet of applets) symlinkSync('busybox', join(dir, 'bin', applet));
  for (const sub of ['proc', 'sys', 'dev', 'tmp', 'root', 'etc', 'run']) mkdirSync(join(dir, sub), { recursive: true });
  writeFileSync(join(dir, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\ngames:x:5:60:games:/usr/games:/bin/sh\n');
  writeFileSync(join(dir, 'etc/group'), 'root:x:0:\ngames:x:60:games\nusers:x:100:games\n');
}

/** A layer that hides a file of the one below, adds others, and has a hard link. */
export function upperLayer(dir: string): void {
  mkdirSync(join(dir, 'etc'), { recursive: true });
  writeFileSync(join(dir, 'etc/motd'), 'hello from the second layer\n');
  linkSync(join(dir, 'etc/motd'), join(dir, 'etc/motd.link'));
  writeFileSync(join(dir, 'bin-marker'), 'x');
  mkdirSync(join(dir, 'run'), { recursive: true });
  writeFileSync(join(dir, '.wh.tmp'), '');
}

function layer(fill: (dir: string) => void, compression: Compression, docker: boolean): LayerBlob {
  const dir = mkdtempSync('/tmp/troupe-layer-');
  try {
    fill(dir);
    const tar = execFileSync(
      'tar',
      [
        '--sort=name',
        '--mtime=@1700000000',
        '--owner=0',
        '--group=0',
        '--numeric-owner',
        '--format=pax',
        '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime',
        '-C',
        dir,
        '-cf',
        '-',
        '.',
      ],
      { maxBuffer: 1 << 30 },
    );
    const bytes = compression === 'gzip' ? gzipSync(tar) : compression === 'zstd' ? zstdCompressSync(tar) : tar;
    const mediaType = docker
      ? 'application/vnd.docker.image.rootfs.diff.tar.gzip'
      : `application/vnd.oci.image.layer.v1.tar${compression === 'none' ? '' : `+${compression}`}`;
    return { descriptor: { mediaType, digest: sha256(bytes), size: bytes.length }, diffId: sha256(tar), bytes };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export interface Layout {
  readonly blobs: ReadonlyMap<string, Buffer>;
  /** What index.json points at. */
  readonly target: Descriptor;
  readonly layers: readonly LayerBlob[];
  readonly chainIds: readonly string[];
}

function chainIdsOf(layers: readonly LayerBlob[]): string[] {
  const chain: string[] = [];
  for (const each of layers)
    chain.push(chain.length === 0 ? each.diffId : sha256(Buffer.from(`${chain.at(-1)} ${each.diffId}`)));
  return chain;
}

/** Blobs and descriptors of an image; an index when it has several platforms. */
export function imageLayout(options: ImageOptions = {}): Layout {
  const blobs = new Map<string, Buffer>();
  const put = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const { layerType, compression = 'gzip' } = options;
  const layers = (options.layers ?? [busyboxLayer, upperLayer])
    .map((fill) => layer(fill, compression, false))
    .map((each) =>
      layerType === undefined ? each : { ...each, descriptor: { ...each.descriptor, mediaType: layerType } },
    );
  for (const each of layers) blobs.set(each.descriptor.digest, each.bytes);
  const platforms = options.platforms ?? [process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64'];
  const manifests = platforms.map((platform) => {
    const [os, architecture] = platform.split('/') as [string, string];
    const config = put(
      'application/vnd.oci.image.config.v1+json',
      Buffer.from(
        JSON.stringify({
          architecture,
          os,
          created: '2023-11-14T22:13:20Z',
          config: { Env: ['PATH=/bin:/usr/bin', 'FROM_IMAGE=yes'], Cmd: ['sh'], WorkingDir: '/', ...options.config },
          rootfs: { type: 'layers', diff_ids: layers.map((each) => each.diffId) },
        }),
      ),
    );
    const manifest = put(
      'application/vnd.oci.image.manifest.v1+json',
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          config,
          layers: layers.map((each) => each.descriptor),
        }),
      ),
    );
    return { ...manifest, platform: { os, architecture } };
  });
  const target =
    manifests.length === 1
      ? manifests[0]!
      : put(
          'application/vnd.oci.image.index.v1+json',
          Buffer.from(
            JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }),
          ),
        );
  return { blobs, target, layers, chainIds: chainIdsOf(layers) };
}

/** Writes the layout as an OCI archive. `name` is the full reference the image gets on import. */
export function writeOciArchive(path: string, layout: Layout, name: string): void {
  const dir = mkdtempSync('/tmp/troupe-oci-');
  try {
    writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    const annotations = {
      'io.containerd.image.name': name,
      'org.opencontainers.image.ref.name': name.split(':').at(-1)!,
    };
    writeFileSync(
      join(dir, 'index.json'),
      JSON.stringify({ schemaVersion: 2, manifests: [{ ...layout.target, annotations }] }),
    );
    for (const [digest, bytes] of layout.blobs) {
      const file = join(dir, 'blobs', digest.replace(':', '/'));
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, bytes);
    }
    execFileSync('tar', [
      '--sort=name',
      '--mtime=@1700000000',
      '--owner=0',
      '--group=0',
      '-C',
      dir,
      '-cf',
      path,
      'blobs',
      'index.json',
      'oci-layout',
    ]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Writes a `docker save` archive of the layers: manifest.json, config, one tar per layer. */
export function writeDockerArchive(
  path: string,
  options: ImageOptions & { readonly name: string },
): { layers: readonly LayerBlob[]; chainIds: readonly string[] } {
  const dir = mkdtempSync('/tmp/troupe-docker-');
  try {
    const layers = (options.layers ?? [busyboxLayer, upperLayer]).map((fill) => layer(fill, 'none', true));
    const config = Buffer.from(
      JSON.stringify({
        architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
        os: 'linux',
        config: { Env: ['PATH=/bin'], Cmd: ['sh'] },
        rootfs: { type: 'layers', diff_ids: layers.map((each) => each.diffId) },
      }),
    );
    const configName = `${sha256(config).slice(7)}.json`;
    writeFileSync(join(dir, configName), config);
    const names = layers.map((each) => `${each.diffId.slice(7)}/layer.tar`);
    for (const [index, name] of names.entries()) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), layers[index]!.bytes);
    }
    writeFileSync(
      join(dir, 'manifest.json'),
      JSON.stringify([{ Config: configName, RepoTags: [options.name], Layers: names }]),
    );
    execFileSync('tar', ['--sort=name', '--mtime=@1700000000', '-C', dir, '-cf', path, '.']);
    return { layers, chainIds: chainIdsOf(layers) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
