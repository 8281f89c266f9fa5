/** Layers, applied to directories. */
import { chmodSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { engines } from '../lib/compression/decoder.ts';
import { archive, entry } from '../lib/tar/craft.ts';
import { GZIP, TAR, bind, contentId, layer, refusal, setUp, sha256 } from '../../test/helpers/differ.ts';

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

for (const inflate of ['auto', 'zlib'] as const) {
  test(`apply: one byte of a compressed blob rotted, anywhere (${inflate}): DataLoss, or nothing that comes out of it differs`, async (t) => {
    const { client, store, directory, daemon } = await setUp(t, { inflate });
    const plain = archive(entry({ name: 'a', body: 'content '.repeat(300) }));
    const diffId = sha256(plain);
    const checksum = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
    // A frame of one raw block (RFC 8878, 3.1.1): nothing but its digest tells that it has changed.
    const stored = (part: Buffer): Buffer => {
      const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0, 0, 0]);
      header.writeUIntLE((part.length << 3) | 1, 6, 3);
      return Buffer.concat([header, part]);
    };
    for (const [mediaType, bytes] of [
      [GZIP, gzipSync(plain)],
      [`${TAR}+zstd`, zstdCompressSync(plain)],
      [`${TAR}+zstd`, zstdCompressSync(plain, checksum)],
      // The first frame has a checksum and the second has none.
      [`${TAR}+zstd`, Buffer.concat([zstdCompressSync(plain.subarray(0, 600), checksum), stored(plain.subarray(600))])],
      [TAR, plain],
    ] as const) {
      const digest = await store(bytes);
      const path = join(daemon.root, contentId, 'blobs/sha256', digest.slice(7));
      chmodSync(path, 0o600);
      let refused = 0;
      for (let at = 0; at < bytes.length; at += 7) {
        const damaged = Buffer.from(bytes);
        damaged[at]! ^= 0x10;
        writeFileSync(path, damaged);
        const root = directory(`${digest.slice(7, 15)}-${at}`);
        try {
          const { applied } = await client.apply({ diff: { mediaType, digest }, mounts: [bind(root)] });
          t.is(applied?.digest, diffId, `byte ${at}`);
        } catch (error) {
          t.true(Failure.is(error, 'DataLoss'), `byte ${at}: ${String(error)}`);
          refused++;
        }
      }
      t.true(refused > bytes.length / 14);
    }
  });
}

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
