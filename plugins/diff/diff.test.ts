import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { lgetxattr, mount, mountinfo, unmountAll } from 'troupe/sys';
import { inProcess } from '../../test/helpers/in-process.ts';
import { lacking, rootTest } from '../../test/helpers/privilege.ts';
import content from '../content/index.ts';
import { engines } from '../lib/compression/decoder.ts';
import { inventory } from '../lib/layer/inventory.ts';
import { archive, entry } from '../lib/tar/craft.ts';
import diff from './index.ts';

const id = 'io.containerd.differ.v1.walking';
const contentId = 'io.containerd.content.v1.content';
const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const TAR = 'application/vnd.oci.image.layer.v1.tar';
const config = {
  default: ['walking'],
  sync_fs: false,
  threads: 2,
  queue: 16,
  inflate: 'auto',
  max_unpacked_bytes: 0,
  max_entries: 1000,
  verify_timeout: 10_000,
};
const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Locks of refs are the whole process's, and tests run side by side in it. */
let refs = 0;

async function setUp(
  t: ExecutionContext,
  options: Partial<Omit<typeof config, 'inflate'>> & { readonly inflate?: 'auto' | 'zlib' } = {},
) {
  const daemon = inProcess(t, 'content', 'leases');
  await daemon.add(content, { id: contentId, prefix: 'content', config: { content_sharing_policy: 'shared' } });
  const plugin = await daemon.add(diff, { id, config: { ...config, ...options } });
  const blobs = daemon.client(ContentDefinition, { namespace: 'default' });
  const store = async (bytes: Buffer): Promise<string> => {
    async function* requests(): AsyncGenerator<WriteContentRequest> {
      yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref: `r${refs++}`, data: bytes });
      yield WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, offset: BigInt(bytes.length) });
    }
    for await (const _ of blobs.write(requests()));
    return sha256(bytes);
  };
  const directory = (name: string): string => {
    const path = join(daemon.root, 'layers', name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  const client = daemon.client(DiffDefinition, { namespace: 'default' });
  t.teardown(() => unmountAll(daemon.root));
  return { daemon, plugin, client, blobs, store, directory };
}

const bind = (source: string, mode: 'rw' | 'ro' = 'rw') => ({ type: 'bind', source, options: [mode, 'rbind'] });
const overlay = (lower: string[], upper?: string, work?: string) => ({
  type: 'overlay',
  source: 'overlay',
  options: [
    'index=off',
    ...(upper === undefined ? [] : [`workdir=${work}`, `upperdir=${upper}`]),
    `lowerdir=${lower.join(':')}`,
  ],
});
const layer = archive(
  entry({ name: 'etc', type: '5', mode: 0o755 }),
  entry({ name: 'etc/hostname', body: 'troupe', uid: 7 }),
  entry({ name: '.wh.gone' }),
);

const refusal = async (
  t: ExecutionContext,
  work: Promise<unknown>,
  code: Failure['code'],
  message: RegExp,
): Promise<void> => {
  const failure = (await t.throwsAsync(work, { instanceOf: Failure, message })) as Failure;
  t.is(failure.code, code);
};

for (const [name, bytes, mediaType] of [
  ['gzip', gzipSync(layer), GZIP],
  ['zstd', zstdCompressSync(layer), 'application/vnd.oci.image.layer.v1.tar+zstd'],
  ['plain', layer, TAR],
  ['docker', gzipSync(layer), 'application/vnd.docker.image.rootfs.diff.tar.gzip'],
  ['a type that says gzip, bytes that are zstd', zstdCompressSync(layer), GZIP],
] as const) {
  test(`apply: ${name}`, async (t) => {
    const { client, store, directory } = await setUp(t);
    const digest = await store(bytes);
    const root = directory('root');
    const { applied } = await client.apply({
      diff: { mediaType, digest, size: BigInt(bytes.length) },
      mounts: [bind(root)],
    });
    t.deepEqual(applied, { mediaType: TAR, digest: sha256(layer), size: BigInt(layer.length), annotations: {} });
    t.is(readFileSync(join(root, 'etc/hostname'), 'utf8'), 'troupe');
    t.deepEqual(readdirSync(root), ['etc']);
  });
}

for (const inflate of ['auto', 'zlib'] as const) {
  test(`apply: by whatever inflates (${inflate}), the same files and the same words`, async (t) => {
    const { client, store, directory, plugin } = await setUp(t, { inflate });
    const large = archive(...Array.from({ length: 30 }, (_, i) => entry({ name: `f${i}`, body: 'x'.repeat(1 << 18) })));
    for (const [mediaType, bytes] of [
      [GZIP, gzipSync(large)],
      [`${TAR}+zstd`, zstdCompressSync(large)],
    ] as const) {
      const root = directory(`root-${bytes.length}`);
      const digest = await store(bytes);
      const { applied } = await client.apply({ diff: { mediaType, digest }, mounts: [bind(root)] });
      t.is(applied?.digest, sha256(large));
      t.is(readdirSync(root).length, 30);
      const cut = await store(bytes.subarray(0, -6));
      const work = client.apply({ diff: { mediaType, digest: cut }, mounts: [bind(directory('cut'))] });
      await refusal(
        t,
        work,
        'InvalidArgument',
        /^layer sha256:.*: (gzip|zstd): unexpected end of file: invalid argument$/,
      );
    }
    const said = plugin.log.find(({ message }) => message === 'what layers are inflated by');
    t.deepEqual(said?.fields, engines(inflate));
  });
}

rootTest('apply: into an overlay, without mounting it, with what depends on the layers below', async (t) => {
  const { client, store, directory } = await setUp(t);
  const [lower, upper, work] = [directory('lower'), directory('upper'), directory('work')];
  writeFileSync(join(lower, 'gone'), 'x');
  mkdirSync(join(lower, 'etc'));
  chmodSync(join(lower, 'etc'), 0o700);
  const bytes = archive(
    entry({ name: 'etc/hostname', body: 'troupe' }),
    entry({ name: '.wh.gone' }),
    entry({ name: 'again', type: '1', link: 'etc/hostname' }),
  );
  const digest = await store(bytes);
  await client.apply({ diff: { mediaType: TAR, digest }, mounts: [overlay([lower], upper, work)], syncFs: true });
  const merged = directory('merged');
  mount('overlay', merged, 'overlay', 0, `lowerdir=${upper}:${lower}`);
  t.deepEqual(
    inventory(merged).map((line) => line.split(' ').slice(0, 3).join(' ')),
    ['"again" file 644', '"etc" directory 700', '"etc/hostname" file 644'],
  );
});

const detached = (upper: string) => ({ type: 'overlay', source: 'overlay', options: [`upperdir=${upper}`] });

rootTest('apply: into an overlay whose lower directories come later', async (t) => {
  const { client, store, directory } = await setUp(t);
  const [lower, upper] = [directory('lower'), directory('upper, with: signs')];
  mkdirSync(join(lower, 'etc'));
  for (const name of ['gone', 'stays', 'etc/old', 'etc/replaced']) writeFileSync(join(lower, name), 'x');
  const bytes = archive(
    entry({ name: 'etc', type: '5', mode: 0o755 }),
    entry({ name: 'etc/.wh.old' }),
    entry({ name: 'etc/replaced', body: 'y' }),
    entry({ name: '.wh.gone' }),
    entry({ name: 'etc/opaque', type: '5', mode: 0o755 }),
    entry({ name: 'etc/opaque/.wh..wh..opq' }),
  );
  const digest = await store(bytes);
  const { applied } = await client.apply({
    diff: { mediaType: TAR, digest },
    mounts: [detached(upper.replace(/[\\,:]/g, '\\$&'))],
  });
  t.is(applied!.digest, sha256(bytes));
  const gone = statSync(join(upper, 'gone'));
  t.deepEqual([gone.isCharacterDevice(), gone.rdev], [true, 0]);
  t.is(lgetxattr(join(upper, 'etc/opaque'), 'trusted.overlay.opaque')?.toString(), 'y');
  const merged = directory('merged');
  symlinkSync(upper, join(lower, '../plain'));
  mount('overlay', merged, 'overlay', 0, `lowerdir=${join(lower, '../plain')}:${lower}`);
  t.deepEqual(
    inventory(merged).map((line) => line.split(' ').slice(0, 2).join(' ')),
    ['"etc" directory', '"etc/opaque" directory', '"etc/replaced" file', '"stays" file'],
  );
});

for (const [name, entries, why] of [
  ['a directory that it does not list', [entry({ name: 'etc/hostname', body: 'x' })], /it does not list "etc" before/],
  [
    'a directory that it lists too late',
    [entry({ name: 'etc/hostname', body: 'x' }), entry({ name: 'etc', type: '5', mode: 0o755 })],
    /it does not list "etc" before/,
  ],
  ['a whiteout in a directory that it does not list', [entry({ name: 'etc/.wh.x' })], /it does not list "etc" before/],
  ['an opaque root', [entry({ name: '.wh..wh..opq' })], /it hides everything below its root/],
  [
    'a hard link to a file below',
    [entry({ name: 'x', type: '1', link: 'y' })],
    /a hard link to a file of a layer below/,
  ],
] as const) {
  rootTest(`apply: a layer that has to know what is below it is refused without: ${name}`, async (t) => {
    const { client, store, directory } = await setUp(t);
    const digest = await store(archive(...entries));
    const diffOf = { mediaType: TAR, digest };
    await refusal(t, client.apply({ diff: diffOf, mounts: [detached(directory('upper'))] }), 'FailedPrecondition', why);
    await refusal(
      t,
      client.apply({ diff: diffOf, mounts: [detached(directory('again'))] }),
      'FailedPrecondition',
      /prepare it on its parent and apply the layer there: failed precondition$/,
    );
    const lower = directory('lower');
    writeFileSync(join(lower, 'y'), 'x');
    await client.apply({ diff: diffOf, mounts: [overlay([lower], directory('with'), directory('work'))] });
  });
}

if (lacking('root', 'mount') !== undefined) {
  test('apply: a daemon that may not leave marks of overlayfs says so before it unpacks', async (t) => {
    const { client, store, directory } = await setUp(t);
    const upper = directory('upper');
    const call = client.apply({ diff: { mediaType: TAR, digest: await store(layer) }, mounts: [detached(upper)] });
    await refusal(t, call, 'FailedPrecondition', /CAP_SYS_ADMIN.* apply the layer there: failed precondition$/);
    t.deepEqual(readdirSync(upper), []);
  });
}

test('apply: an overlay of which nothing is said', async (t) => {
  const { client, store } = await setUp(t);
  const mounts = [{ type: 'overlay', source: 'overlay', options: [] }];
  const digest = await store(layer);
  await refusal(t, client.apply({ diff: { mediaType: TAR, digest }, mounts }), 'FailedPrecondition', /mount/);
});

rootTest('apply: mounts that have to be mounted are unmounted, whatever happens', async (t) => {
  const { client, daemon, store, directory } = await setUp(t);
  const root = directory('root');
  mkdirSync(join(root, 'inner'));
  const mounts = [bind(root), { type: 'tmpfs', source: 'tmpfs', target: '/inner', options: ['size=64k'] }];
  const good = await store(archive(entry({ name: 'a', body: 'x' }), entry({ name: 'inner/b', body: 'y' })));
  await client.apply({ diff: { mediaType: TAR, digest: good }, mounts });
  t.deepEqual([existsSync(join(root, 'a')), existsSync(join(root, 'inner/b'))], [true, false]);
  const large = await store(archive(entry({ name: 'inner/large', body: 'x'.repeat(200_000) })));
  await refusal(
    t,
    client.apply({ diff: { mediaType: TAR, digest: large }, mounts }),
    'ResourceExhausted',
    /no space left on device/,
  );
  await refusal(
    t,
    client.apply({ diff: { mediaType: TAR, digest: good }, mounts: [{ type: 'nosuchfs', source: 'x' }] }),
    'FailedPrecondition',
    /nosuchfs/,
  );
  t.deepEqual(
    mountinfo().filter(({ mountPoint }) => mountPoint.startsWith(daemon.root)),
    [],
  );
  const scratch = join(daemon.root, 'state', id, 'mounts');
  t.deepEqual(
    readdirSync(scratch).flatMap((name) => readdirSync(join(scratch, name))),
    [],
  );
});

test('apply: what is refused', async (t) => {
  const { client, store, directory, daemon } = await setUp(t, { max_unpacked_bytes: 100_000 });
  const mounts = [bind(directory('root'))];
  const digest = await store(layer);
  const apply = (descriptor: object, given: object[] = mounts) =>
    client.apply({ diff: { mediaType: TAR, digest, ...descriptor }, mounts: given });
  await refusal(t, client.apply({ mounts }), 'InvalidArgument', /no diff was given/);
  await refusal(t, apply({ digest: 'sha256:x' }), 'InvalidArgument', /digest/);
  await refusal(
    t,
    apply({ digest: sha256(Buffer.from('no')) }),
    'NotFound',
    /^content sha256:[0-9a-f]{64}: not found$/,
  );
  await refusal(
    t,
    apply({ mediaType: 'application/vnd.oci.image.config.v1+json' }),
    'Unimplemented',
    /no processor for media-type/,
  );
  await refusal(t, apply({ size: 5n }), 'FailedPrecondition', /the descriptor says 5 bytes/);
  await refusal(t, apply({}, []), 'InvalidArgument', /no mounts were given/);
  await refusal(t, apply({}, [bind(join(daemon.root, 'nowhere'))]), 'NotFound', /directory of a mount/);
  await refusal(
    t,
    apply({ digest: await store(Buffer.from('no tar at all'.repeat(100))) }),
    'InvalidArgument',
    /layer sha256:.* checksum is wrong at offset 0: invalid argument/,
  );
  await refusal(
    t,
    apply({ digest: await store(gzipSync(layer).subarray(0, -4)) }),
    'InvalidArgument',
    /gzip: unexpected end of file/,
  );
  await refusal(
    t,
    apply({ digest: await store(archive(entry({ name: 'big', body: 'x'.repeat(200_000) }))) }),
    'ResourceExhausted',
    /more than 100000 bytes/,
  );
  await refusal(
    t,
    apply({
      digest: await store(
        archive(...Array.from({ length: 1001 }, () => Buffer.alloc(0)).map(() => entry({ name: 'd', type: '5' }))),
      ),
    }).catch(async (error: Failure) => {
      // 1001 headers are more than the bytes allowed as well; the entries are counted first only without that limit.
      throw error;
    }),
    'ResourceExhausted',
    /more than/,
  );
  await refusal(
    t,
    client.apply({ diff: { mediaType: TAR, digest }, mounts }, { namespace: 'other' }),
    'NotFound',
    /not found/,
  );
  await refusal(
    t,
    client.apply({ diff: { mediaType: TAR, digest }, mounts }, { namespace: '' }),
    'FailedPrecondition',
    /namespace is required/,
  );
});

test('apply: a blob that rotted on the disk is DataLoss', async (t) => {
  const { client, store, directory, daemon } = await setUp(t);
  const bytes = archive(entry({ name: 'a', body: 'content' }));
  const digest = await store(bytes);
  const path = join(daemon.root, contentId, 'blobs/sha256', digest.slice(7));
  const apply = () => client.apply({ diff: { mediaType: TAR, digest }, mounts: [bind(directory('root'))] });
  const damaged = Buffer.from(bytes);
  damaged[520] = 0x20;
  chmodSync(path, 0o600);
  writeFileSync(path, damaged);
  await refusal(t, apply(), 'DataLoss', /the blob's bytes have digest sha256:/);
  truncateSync(path, 100);
  await refusal(t, apply(), 'DataLoss', /the blob has 100 bytes instead of/);
});

test('apply: cancelled by its caller; the next one works', async (t) => {
  const { client, store, directory } = await setUp(t, { max_entries: 10_000_000 });
  const bytes = gzipSync(
    archive(...Array.from({ length: 40 }, (_, i) => entry({ name: `f${i}`, body: Buffer.alloc(1 << 20, i) }))),
  );
  const digest = await store(bytes);
  const root = directory('root');
  const abort = new AbortController();
  const running = client.apply({ diff: { mediaType: GZIP, digest }, mounts: [bind(root)] }, { signal: abort.signal });
  abort.abort(new Failure('Canceled', 'context canceled'));
  await refusal(t, running, 'Canceled', /context canceled/);
  await client.apply({ diff: { mediaType: GZIP, digest }, mounts: [bind(root)] });
  t.is(readdirSync(root).length, 40);
});

test('apply: many at once, more than threads', async (t) => {
  const { client, store, directory } = await setUp(t);
  const digest = await store(gzipSync(layer));
  const roots = Array.from({ length: 12 }, (_, i) => directory(`root${i}`));
  await Promise.all(roots.map((root) => client.apply({ diff: { mediaType: GZIP, digest }, mounts: [bind(root)] })));
  for (const root of roots) t.deepEqual(readdirSync(root), ['etc']);
});

async function read(client: Awaited<ReturnType<typeof setUp>>['blobs'], digest: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { data } of client.read({ digest })) parts.push(data);
  return Buffer.concat(parts);
}

rootTest('diff: of a snapshot against its parent, stored with its diff id, and applied again', async (t) => {
  const { client, blobs, directory } = await setUp(t);
  const [lower, upper, work, merged] = [directory('lower'), directory('upper'), directory('work'), directory('merged')];
  writeFileSync(join(lower, 'gone'), 'x');
  writeFileSync(join(lower, 'stays'), 'x');
  mount('overlay', merged, 'overlay', 0, `index=off,lowerdir=${lower},upperdir=${upper},workdir=${work}`);
  writeFileSync(join(merged, 'large'), Buffer.alloc(5 << 20, 'some content '));
  const { unlinkSync } = await import('node:fs');
  unlinkSync(join(merged, 'gone'));

  const left = [bind(lower, 'ro')];
  const right = [overlay([lower], upper, work)];
  const { diff: made } = await client.diff({ left, right, ref: 'a-ref', labels: { 'containerd.io/gc.root': 'now' } });
  t.is(made!.mediaType, GZIP);
  const bytes = await read(blobs, made!.digest);
  t.is(BigInt(bytes.length), made!.size);
  t.is(sha256(bytes), made!.digest);
  const { info } = await blobs.info({ digest: made!.digest });
  t.deepEqual(info!.labels, {
    'containerd.io/gc.root': 'now',
    'containerd.io/uncompressed': sha256(gunzipSync(bytes)),
  });

  const again = directory('again');
  writeFileSync(join(again, 'gone'), 'x');
  writeFileSync(join(again, 'stays'), 'x');
  await client.apply({ diff: made!, mounts: [bind(again)] });
  t.deepEqual(
    inventory(again).map((line) => line.split(' ')[0]),
    ['"large"', '"stays"'],
  );

  // The same once more gives the same blob, and says so; a label that was missing is added.
  const { diff: same } = await client.diff({ left, right, labels: { more: 'yes' } });
  t.is(same!.digest, made!.digest);
  t.is((await blobs.info({ digest: made!.digest })).info!.labels.more, 'yes');
  t.deepEqual((await blobs.listStatuses({})).statuses, []);

  // Walking both, mounted, finds the same layer as the upper directory alone.
  const view = [overlay([upper, lower])];
  const { diff: walked } = await client.diff({
    left: [bind(lower, 'ro'), bind(lower, 'ro')],
    right: view,
    mediaType: TAR,
  });
  t.is(walked!.digest, sha256(gunzipSync(bytes)));
  t.deepEqual((await blobs.info({ digest: walked!.digest })).info!.labels, {});
});

test('diff: against nothing, zstd', async (t) => {
  const { client, directory, blobs } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, 'a'), 'x');
  const { diff: made } = await client.diff({ right: [bind(tree, 'ro')], mediaType: `${TAR}+zstd` });
  t.is(made!.mediaType, `${TAR}+zstd`);
  const root = directory('root');
  await client.apply({ diff: made!, mounts: [bind(root)] });
  t.deepEqual(inventory(root), inventory(tree));
  t.is((await read(blobs, made!.digest)).readUInt32LE(0), 0xfd2fb528);
});

test('diff: what is refused leaves no ingest behind', async (t) => {
  const { client, directory, blobs, daemon } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, '.wh.x'), '');
  await refusal(t, client.diff({ right: [bind(tree)] }), 'FailedPrecondition', /the name means a deletion/);
  await refusal(
    t,
    client.diff({ right: [bind(tree)], mediaType: 'application/json' }),
    'Unimplemented',
    /unsupported diff media type "application\/json"/,
  );
  await refusal(t, client.diff({ right: [bind(join(daemon.root, 'nowhere'))] }), 'NotFound', /directory of a mount/);
  t.deepEqual((await blobs.listStatuses({})).statuses, []);
});

test('diff: a ref that somebody else holds', async (t) => {
  const { client, directory, blobs } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, 'large'), Buffer.alloc(30 << 20, 1));
  const held = Promise.withResolvers<void>();
  async function* requests(): AsyncGenerator<WriteContentRequest> {
    yield WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref: 'held' });
    await held.promise;
  }
  const writing = blobs.write(requests())[Symbol.asyncIterator]();
  await writing.next();
  await refusal(t, client.diff({ right: [bind(tree)], ref: 'held', mediaType: TAR }), 'Unavailable', /held/);
  held.resolve();
  await writing.next();
  const { diff: made } = await client.diff({ right: [bind(tree)], ref: 'held', mediaType: TAR });
  t.true(made!.size > 30n << 20n);
});

rootTest('mounts of an earlier daemon are cleaned at the start', async (t) => {
  const daemon = inProcess(t, 'content', 'leases');
  const left = join(daemon.root, 'state', id, 'mounts', '1.1', 'mount-left');
  mkdirSync(left, { recursive: true });
  mount('tmpfs', left, 'tmpfs', 0);
  // In use, as a killed daemon's may be.
  const fd = openSync(left, 'r');
  t.teardown(() => closeSync(fd));
  const plugin = await daemon.add(diff, { id, config });
  t.deepEqual(readdirSync(join(daemon.root, 'state', id, 'mounts')), []);
  t.true(plugin.log.some(({ message }) => message === 'unmounted what an earlier daemon or a crash left'));
});
