/**
 * Transfers that go wrong, in a real daemon: whatever the registry does, the pull ends in words; nothing of it is left that a collection would not take, and the
 * next pull works.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Failure } from 'troupe/plugin';
import { AuthType } from 'troupe/proto/containerd/types/transfer/registry.ts';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { type HostileRegistry, useHostile } from '../helpers/hostile-registry.ts';
import { imageLayout, type Layout, sha256 } from '../helpers/image.ts';
import { layoutOf } from '../helpers/layout.ts';
import { rootTest } from '../helpers/privilege.ts';
import { answerAuth, OpenedStream, registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const host = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const unpacks = [{ platform: host, snapshotter: 'overlayfs' }];
const image = imageLayout({
  layers: [
    (dir) => writeFileSync(join(dir, 'one'), randomBytes(200_000)),
    (dir) => {
      mkdirSync(join(dir, 'd'));
      writeFileSync(join(dir, 'd/two'), randomBytes(100_000));
    },
  ],
});

interface Rig {
  readonly daemon: Daemon;
  readonly client: GrpcClient;
  /** Pulls what the registry's tag is. */
  pull(
    registry: HostileRegistry,
    namespace: string,
    more?: { authStream?: string; signal?: AbortSignal },
  ): Promise<string[]>;
}

async function useRig(t: ExecutionContext, config = ''): Promise<Rig> {
  const daemon = await useDaemon(t, {
    config: `version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\nretry_backoff = "1ms"\nstall_timeout = "1s"\n${config}`,
  });
  const client = new GrpcClient(daemon.address);
  t.teardown(() => client.close());
  const pull: Rig['pull'] = async (registry, namespace, { authStream = '', signal } = {}) => {
    const name = `${registry.host}/team/app:1`;
    const call = { namespace, ...(signal && { signal }) };
    const seen = await transfer(
      client,
      registryEnd(name, { defaultScheme: 'http', authStream }),
      storeEnd({ name, platforms: [host], unpacks }),
      call,
    );
    return seen.map(({ event }) => event);
  };
  return { daemon, client, pull };
}

/** No image, lease or snapshot, and of content only what has come whole. */
async function nothingLeft(t: ExecutionContext, { daemon }: Rig, namespace: string, what: string): Promise<void> {
  for (const args of [
    ['images', 'ls', '-q'],
    ['leases', 'ls', '-q'],
    ['snapshots', 'ls'],
  ]) {
    const { stdout } = await daemon.ctr(args, { namespace });
    t.is(stdout.replace(/^KEY.*\n/, ''), '', `${what}: ${args[0]}`);
  }
}

function withManifest(layout: Layout, change: (manifest: { config: object; layers: object[] }) => unknown): Layout {
  const blobs = new Map(layout.blobs);
  const bytes = Buffer.from(
    JSON.stringify(change(JSON.parse(layout.blobs.get(layout.target.digest)!.toString()) as never)),
  );
  blobs.set(sha256(bytes), bytes);
  return { ...layout, blobs, target: { ...layout.target, digest: sha256(bytes), size: bytes.length } };
}

rootTest.serial('whatever a registry does: an error in words, nothing left, and the next pull works', async (t) => {
  // What one namespace has, another would get without asking the registry.
  const rig = await useRig(t, '[plugins."io.containerd.content.v1.content"]\ncontent_sharing_policy = "isolated"\n');
  const registry = await useHostile(t, image, { seed: 5 });
  const always = Number.POSITIVE_INFINITY;
  let turn = 0;
  for (const [behaviour, code] of [
    ['truncate', 'Unavailable'],
    ['too long', 'FailedPrecondition'],
    ['wrong bytes', 'FailedPrecondition'],
    ['announces more', 'FailedPrecondition'],
    ['two lengths', 'Unavailable'],
    ['blob page', 'InvalidArgument'],
    ['page', 'InvalidArgument'],
    ['bytes differ', 'FailedPrecondition'],
    ['always 401', 'Unauthenticated'],
    ['blob status', 'Unavailable'],
    ['stall', 'Unavailable'],
    ['redirect', 'Unavailable'],
  ] as const) {
    const namespace = `bad-${++turn}`;
    registry.misbehave({ [behaviour]: always });
    const error = await t.throwsAsync(rig.pull(registry, namespace), undefined, behaviour);
    t.is((error as Error & { code: string }).code, code, `${behaviour}: ${error?.message}`);
    t.false(/\n|\.ts:|\/dev\/shm/.test(error!.message), error!.message);
    await nothingLeft(t, rig, namespace, behaviour);
    registry.misbehave({});
    t.true((await rig.pull(registry, namespace)).includes('saved'), behaviour);
  }
});

rootTest.serial('documents that lie: refused before what they name is asked for', async (t) => {
  const rig = await useRig(t);
  const cases: [string, Layout, RegExp][] = [
    ['both', withManifest(image, (manifest) => ({ ...manifest, manifests: [] })), /is a manifest and has manifests/],
    [
      'size',
      withManifest(image, (manifest) => ({
        ...manifest,
        layers: manifest.layers.map((each) => ({ ...each, size: 5 })),
      })),
      /has \d+ bytes, its descriptor says 5/,
    ],
    [
      'count',
      withManifest(image, (manifest) => ({ ...manifest, layers: manifest.layers.slice(1) })),
      /number of layers and diffIDs don't match: 1 != 2/,
    ],
    [
      'itself',
      withManifest(image, (manifest) => ({ ...manifest, config: manifest.layers[0]! })),
      /its config is a layer/,
    ],
    ['diff id', layoutOf([{ bytes: randomBytes(6000), diffId: `sha256:${'0'.repeat(64)}` }]), /layer sha256/],
  ];
  for (const [what, layout, message] of cases) {
    const registry = await useHostile(t, layout);
    const namespace = `lie-${what.replace(' ', '-')}`;
    const error = await t.throwsAsync(rig.pull(registry, namespace), undefined, what);
    t.regex(error!.message, message, what);
    await nothingLeft(t, rig, namespace, what);
  }
  // An image for another machine.
  const other = await useHostile(t, imageLayout({ platforms: ['linux/s390x', 'plan9/amd64'] }));
  const unmatched = (await t.throwsAsync(rig.pull(other, 'lie-platform'))) as Failure;
  t.is(unmatched.code, 'NotFound');
  t.regex(unmatched.message, /no match for platform in manifest/);
  await nothingLeft(t, rig, 'lie-platform', 'platform');
  // An index of an index of an index.
  const blobs = new Map(image.blobs);
  let target = image.target;
  for (let depth = 0; depth < 12; depth++) {
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const { digest, size } = target;
    const bytes = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType, manifests: [{ mediaType: target.mediaType, digest, size }] }),
    );
    target = { mediaType, digest: sha256(bytes), size: bytes.length };
    blobs.set(target.digest, bytes);
  }
  const deep = await useHostile(t, { ...image, blobs, target });
  await t.throwsAsync(rig.pull(deep, 'deep'), { message: /lies deeper than 8 indexes/ });
  await nothingLeft(t, rig, 'deep', 'deep');
});

rootTest.serial(
  'what an image says of itself stays in it: nothing of ours is labelled by it, no URL of it is asked',
  async (t) => {
    const rig = await useRig(t);
    const asked: string[] = [];
    const elsewhere = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      response.end('metadata');
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    t.teardown(() => elsewhere.close());
    const { port } = elsewhere.address() as AddressInfo;
    const urls = [
      `http://127.0.0.1:${port}/layer`,
      'http://169.254.169.254/latest',
      'file:///etc/passwd',
      'ftp://a.test/x',
    ];
    const canary = join(rig.daemon.dir, 'canary');
    const annotations = {
      'containerd.io/restart.loguri': `binary:///bin/touch?${canary}`,
      'containerd.io/restart.status': 'running',
      'containerd.io/gc.root': 'now',
      'containerd.io/snapshot/overlay.upperdir': '/etc',
      'containerd.io/snapshot.ref': 'x',
      'io.cri-containerd.image': 'managed',
      'io.kubernetes.pod.name': 'x',
      'troupe/omitted': 'x',
    };
    const labelled = imageLayout({
      layers: [(dir) => writeFileSync(join(dir, 'one'), '1'), (dir) => writeFileSync(join(dir, 'two'), '2')],
      config: { Labels: annotations },
    });
    const foreign = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip';
    const layout = withManifest(labelled, ({ config, layers, ...manifest }) => ({
      ...manifest,
      annotations,
      config: { ...config, annotations, urls },
      layers: layers.map((each, at) => ({ ...each, annotations, urls, ...(at === 1 && { mediaType: foreign }) })),
    }));
    const registry = await useHostile(t, layout);
    t.true((await rig.pull(registry, 'said')).includes('saved'));
    t.deepEqual(asked, []);

    const seen: string[] = [];
    const call = { namespace: 'said' };
    for (const { labels, target } of (await typedClient(rig.client, ImagesDefinition).list({ filters: [] }, call))
      .images)
      seen.push(...Object.keys(labels), ...Object.keys(target?.annotations ?? {}));
    for await (const { info } of typedClient(rig.client, ContentDefinition).list({ filters: [] }, call))
      seen.push(...info.flatMap(({ labels }) => Object.keys(labels)));
    let snapshots = 0;
    for await (const { info } of typedClient(rig.client, SnapshotsDefinition).list(
      { snapshotter: 'overlayfs', filters: [] },
      call,
    )) {
      snapshots += info.length;
      seen.push(
        ...info.flatMap(({ labels }) => Object.keys(labels)).filter((key) => key !== 'containerd.io/snapshot.ref'),
      );
    }
    t.is(snapshots, 2);
    t.true(seen.some((key) => key.startsWith('containerd.io/gc.ref.content')));
    t.deepEqual(
      seen.filter((key) => Object.hasOwn(annotations, key)),
      [],
    );
    t.false(existsSync(canary));
  },
);

rootTest.serial('credentials: asked for over the stream, used, and refused when they are wrong', async (t) => {
  const rig = await useRig(t);
  const registry = await useHostile(t, image);
  for (const behaviour of ['basic', 'bearer'] as const) {
    registry.misbehave({ [behaviour]: Number.POSITIVE_INFINITY });
    const stream = await OpenedStream.open(rig.client, `auth-${behaviour}`, { namespace: 'auth' });
    const asked = answerAuth(stream, () => ({ authType: AuthType.CREDENTIALS, username: 'user', secret: 'secret' }));
    t.true((await rig.pull(registry, 'auth', { authStream: stream.id })).includes('saved'), behaviour);
    const [request, ...more] = await asked;
    t.deepEqual([request?.host, request?.reference, more.length], [registry.host, `${registry.host}/team/app:1`, 0]);
    t.regex(request!.wwwauthenticate[0]!, behaviour === 'basic' ? /^Basic/ : /^Bearer/);
    await rig.daemon.ctr(['images', 'rm', '--sync', `${registry.host}/team/app:1`], { namespace: 'auth' });
  }
  registry.misbehave({ basic: Number.POSITIVE_INFINITY });
  const stream = await OpenedStream.open(rig.client, 'auth-wrong', { namespace: 'auth' });
  const asked = answerAuth(stream, () => ({ authType: AuthType.CREDENTIALS, username: 'user', secret: 'wrong' }));
  await t.throwsAsync(rig.pull(registry, 'auth', { authStream: stream.id }), {
    message: /authorization failed: unauthenticated/,
  });
  t.is((await asked).length, 1);
  await t.throwsAsync(rig.pull(registry, 'auth'), { message: /authorization failed/ });
});

rootTest.serial(
  'twenty clients that want the same image: each blob is fetched once, each layer unpacked once',
  async (t) => {
    const rig = await useRig(t);
    const registry = await useHostile(t, image);
    registry.misbehave({});
    await Promise.all(Array.from({ length: 20 }, () => rig.pull(registry, 'crowd')));
    const layers = image.layers.map((layer) => layer.descriptor.digest);
    for (const digest of layers)
      t.is(registry.seen.filter(({ method, url }) => method === 'GET' && url.endsWith(digest)).length, 1);
    const { stdout } = await rig.daemon.ctr(['snapshots', 'ls'], { namespace: 'crowd' });
    t.is(stdout.trim().split('\n').length, 1 + layers.length);
    t.is((await rig.daemon.ctr(['leases', 'ls', '-q'], { namespace: 'crowd' })).stdout, '');
    const snapshots = join(rig.daemon.root, 'io.containerd.snapshotter.v1.overlayfs/snapshots');
    t.is(readdirSync(snapshots).length, layers.length);
  },
);

rootTest.serial('a pull that is cancelled keeps its ingest, and the next one goes on from there', async (t) => {
  const rig = await useRig(t, 'min_rate = "0"\n');
  const image = imageLayout({ layers: [(dir) => writeFileSync(join(dir, 'large'), randomBytes(6 << 20))] });
  const registry = await useHostile(t, image);
  registry.misbehave({ stall: 1 });
  const abort = new AbortController();
  const statuses = () =>
    typedClient(rig.client, ContentDefinition).listStatuses({ filters: [] }, { namespace: 'cancel' });
  const pulling = t.throwsAsync(rig.pull(registry, 'cancel', { signal: abort.signal }));
  const large = image.layers.map(({ descriptor }) => descriptor).sort((a, b) => b.size - a.size)[0]!;
  const reached = async (): Promise<bigint> =>
    (await statuses()).statuses.find(({ ref }) => ref === `layer-${large.digest}`)?.offset ?? 0n;
  const until = Date.now() + 30_000;
  while ((await reached()) === 0n && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
  abort.abort();
  await pulling;
  await nothingLeft(t, rig, 'cancel', 'cancelled');
  const offset = await reached();
  t.true(offset > 0n);
  registry.misbehave({});
  t.true((await rig.pull(registry, 'cancel')).includes('saved'));
  const range = registry.seen.find(({ method, url }) => method === 'GET' && url.endsWith(large.digest))?.headers.range;
  t.is(range, `bytes=${offset}-${large.size - 1}`);
  t.is(
    (await run('ctr', ['-a', rig.daemon.address, '-n', 'cancel', 'content', 'active'])).stdout.trim().split('\n')
      .length,
    1,
  );
});
