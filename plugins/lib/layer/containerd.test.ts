/**
 * A containerd that is installed as the judge: the same layers through its own unpacker, on a plain directory, must give the same tree or be refused by both.
 * Skipped where there is none.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { unmountAll } from 'troupe/sys';
import { lacking, needing } from '../../../test/helpers/privilege.ts';
import { archive, type Crafted, entry, pax } from '../tar/craft.ts';
import { type Before, breakouts } from './breakouts.ts';
import { inventory } from './inventory.ts';
import { scratch, unpack } from './scratch.ts';

const needs = ['root', 'mount', 'program containerd', 'program ctr'] as const;
const judged = needing(...needs).serial;

class Containerd {
  path = '';
  #child: ChildProcess | undefined;

  async start(): Promise<void> {
    this.path = mkdtempSync('/dev/shm/troupe-judge-');
    const config = join(this.path, 'config.toml');
    writeFileSync(
      config,
      `version = 2\nroot = "${this.path}/root"\nstate = "${this.path}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${this.path}/sock"\n`,
    );
    const child = spawn('containerd', ['-c', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    for await (const line of createInterface({ input: child.stderr! })) if (line.includes('successfully booted')) break;
    child.stderr!.resume();
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null) {
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
    unmountAll(this.path);
    rmSync(this.path, { recursive: true, force: true });
  }

  ctr(args: string[]): { ok: boolean; text: string } {
    const { status, stdout, stderr } = spawnSync('ctr', ['-a', join(this.path, 'sock'), ...args], { encoding: 'utf8' });
    return { ok: status === 0, text: `${stdout}${stderr}` };
  }

  /** Unpacks layers, bottom first, and answers the directory of what came out, or undefined when it was refused. */
  unpack(name: string, layers: readonly Buffer[]): string | undefined {
    const image = join(this.path, 'image.tar');
    writeFileSync(image, ociArchive(name, layers));
    const imported = this.ctr(['images', 'import', '--snapshotter', 'native', image]);
    if (!imported.ok) {
      if (imported.text.includes('failed to extract layer')) return undefined;
      // Its collector was faster than its importer.
      if (imported.text.includes('failed to prepare extraction snapshot')) return this.unpack(name, layers);
      throw new Error(imported.text);
    }
    const sha256 = (bytes: Buffer | string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const chain = layers.map(sha256).reduce((parent, diffId) => sha256(`${parent} ${diffId}`));
    const snapshots = ['snapshots', '--snapshotter', 'native'];
    for (;;) {
      // Its collector takes a view that has no lease, sooner or later.
      this.ctr([...snapshots, 'view', name, chain]);
      const mount = /mount -t bind (\S+) /.exec(this.ctr([...snapshots, 'mounts', '/mnt', name]).text);
      if (mount !== null) return mount[1]!;
    }
  }
}

/** An image as `ctr images import` reads it (OCI image-spec, "image-layout.md"). */
function ociArchive(name: string, layers: readonly Buffer[]): Buffer {
  const files = new Map<string, Buffer>();
  const add = (bytes: Buffer, mediaType: string) => {
    const digest = createHash('sha256').update(bytes).digest('hex');
    files.set(`blobs/sha256/${digest}`, bytes);
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
  };
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const descriptors = layers.map((layer) => add(layer, 'application/vnd.oci.image.layer.v1.tar'));
  const config = add(
    json({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: descriptors.map(({ digest }) => digest) },
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const manifest = add(
    json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: descriptors }),
    'application/vnd.oci.image.manifest.v1+json',
  );
  const annotations = { 'io.containerd.image.name': name };
  files.set('index.json', json({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }));
  files.set('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  return archive(...[...files].map(([path, body]) => entry({ name: path, body })));
}

/** What a case has before, as a layer of its own. */
function layerOf(before: Before): Buffer {
  return archive(
    ...Object.entries(before).map(([name, what]) => {
      if (what === null) return entry({ name, type: '5', mode: 0o755 });
      if (typeof what === 'string') return entry({ name, body: what });
      return 'symlink' in what
        ? entry({ name, type: '2', link: what.symlink })
        : entry({ name, type: '1', link: what.link });
    }),
  );
}

const dir = (name: string, more: Crafted = {}): Crafted => ({ name, type: '5', mode: 0o755, ...more });
const file = (name: string, body = name, more: Crafted = {}): Crafted => ({ name, body, ...more });

/** Layers, bottom first. */
const more: Record<string, Buffer[]> = {
  'last wins': [
    archive(...[file('a', '1'), dir('a'), file('a/b'), { name: 'a', type: '2', link: 'x' }, file('a', '2')].map(entry)),
  ],
  'devices, pipes, modes': [
    archive(
      entry({ name: 'null', type: '3', devMajor: 1, devMinor: 3, mode: 0o666 }),
      entry({ name: 'disk', type: '4', devMajor: 8, devMinor: 1, mode: 0o660 }),
      entry({ name: 'pipe', type: '6', mode: 0o600 }),
      entry(file('setuid', 'x', { mode: 0o4755, uid: 7 })),
      entry(dir('sticky', { mode: 0o1777 })),
      entry(file('odd', 'x', { mode: 0o177777 })),
    ),
  ],
  times: [
    archive(
      pax({ mtime: '1234567890.123456789', atime: '1334567890.5' }),
      entry(file('ns')),
      pax({ mtime: '-5' }),
      entry(file('negative')),
      pax({ mtime: '99999999999' }),
      entry(file('far')),
      entry(dir('d', { mtime: 1000 })),
      entry(file('d/x')),
    ),
  ],
  'implied parents, a root entry, a global header, AUFS leftovers': [
    archive(
      entry(dir('./', { mode: 0o700 })),
      pax({ path: 'x' }, 'g'),
      entry(file('a/b/c')),
      entry(file('.wh..wh.aufs')),
      entry(file('.')),
    ),
  ],
  attributes: [
    archive(
      pax({
        'SCHILY.xattr.security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex'),
        'SCHILY.xattr.user.a': Buffer.from([0, 10, 61]),
      }),
      entry(file('a', 'x', { uid: 5 })),
    ),
  ],
  'opaque, then content': [
    archive(entry(dir('d')), entry(file('d/lower')), entry(dir('d/e')), entry(file('d/e/lower'))),
    archive(entry(dir('d')), entry(file('d/.wh..wh..opq', '')), entry(file('d/mine'))),
  ],
  'content, then opaque': [
    archive(entry(dir('d')), entry(file('d/lower')), entry(dir('d/e')), entry(file('d/e/lower'))),
    archive(entry(dir('d')), entry(file('d/mine')), entry(file('d/.wh..wh..opq', ''))),
  ],
  'a whiteout of a directory and of nothing': [
    archive(entry(dir('d')), entry(file('d/lower'))),
    archive(entry(file('.wh.d', '')), entry(file('.wh.nothing', ''))),
  ],
  'a whiteout, then the same name': [
    archive(entry(dir('d')), entry(file('d/lower'))),
    archive(entry(file('.wh.d', '')), entry(dir('d')), entry(file('d/mine'))),
  ],
  'a hard link to a layer below': [
    archive(entry(file('a'))),
    archive(entry({ name: 'b', type: '1', link: 'a', mode: 0o644 })),
  ],
  'a file over a directory, a directory over a file': [
    archive(entry(dir('d')), entry(file('d/lower')), entry(file('f'))),
    archive(entry(file('d')), entry(dir('f')), entry(file('f/mine'))),
  ],
  'merged directories': [
    archive(entry(dir('d', { mode: 0o700, uid: 3 })), entry(file('d/lower'))),
    archive(entry(dir('d', { mode: 0o755 })), entry(file('d/mine'))),
  ],
  'type Q': [archive(entry({ name: 'q', type: 'Q' }))],
  'an empty layer': [archive()],
  'names that are no text': [archive(entry({ name: Buffer.from([0x66, 0xff]) }), entry({ name: 'n\u0303' }))],
};

/** Without times that nobody gave: of directories that entries imply, and of those that its native snapshotter copies for the next layer. */
const given = (path: string, layers: number): string[] =>
  inventory(path, { directoryTimes: layers === 1 }).map((line) => line.replace(/mtime=1[7-9]\d{17}/, 'now'));

const daemon = new Containerd();
if (lacking(...needs) === undefined) {
  test.before(() => daemon.start());
  test.after.always(() => daemon.stop());
}

const cases = new Map<string, Buffer[]>(Object.entries(more));
for (const [name, { before, entries }] of Object.entries(breakouts)) {
  cases.set(name, [...(before === undefined ? [] : [layerOf(before)]), archive(...entries.map(entry))]);
}

let count = 0;
for (const [name, layers] of cases) {
  judged(`as containerd: ${name}`, async (t) => {
    const { root } = scratch(t);
    let refused: string | undefined;
    try {
      for (const layer of layers) await unpack(root, layer);
    } catch (error) {
      refused = (error as Error).message;
    }
    const theirs = daemon.unpack(`localhost/case${count++}:x`, layers);
    t.is(refused === undefined, theirs !== undefined, refused);
    if (theirs !== undefined) t.deepEqual(given(root, layers.length), given(theirs, layers.length));
  });
}
