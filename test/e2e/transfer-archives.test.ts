/** Archives in and out through streams, names and pushes, in a real daemon: what comes out is what went in. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import type { ExecutionContext } from 'ava';
import type { Failure } from 'troupe/plugin';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { ImageExportStream, ImageImportStream } from 'troupe/proto/containerd/types/transfer/archive.ts';
import { archive, type Crafted, entry, header } from '../../plugins/lib/tar/craft.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { imageLayout, sha256 as digestOf, writeDockerArchive, writeOciArchive } from '../helpers/image.ts';
import { layoutOf } from '../helpers/layout.ts';
import { needing, rootTest } from '../helpers/privilege.ts';
import { Registry } from '../helpers/registry.ts';
import { useScratch } from '../helpers/scratch.ts';
import { OpenedStream, pack, registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const host = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const image = imageLayout();
const byAnnotation = [{ name: 'unnamed', isPrefix: true, allowOverwrite: true }];

interface Rig {
  readonly dir: string;
  readonly daemon: Daemon;
  readonly client: GrpcClient;
}

async function useRig(t: ExecutionContext): Promise<Rig> {
  const dir = useScratch(t, 'archives');
  const daemon = await useDaemon(t, {
    config: 'version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\n',
  });
  const client = new GrpcClient(daemon.address, { namespace: 'default' });
  t.teardown(() => client.close());
  return { dir, daemon, client };
}

let streams = 0;

async function importBytes(
  { client }: Rig,
  bytes: Uint8Array,
  store: Parameters<typeof storeEnd>[0],
  forceCompress = false,
): Promise<string[]> {
  const stream = await OpenedStream.open(client, `import-${++streams}`, {});
  const sending = stream.sendBytes(bytes).catch(() => {});
  try {
    const seen = await transfer(
      client,
      pack(ImageImportStream, { stream: stream.id, forceCompress }),
      storeEnd(store),
      {},
    );
    return seen.filter(({ event }) => event === 'saved').map(({ name }) => name);
  } finally {
    stream.close();
    await sending;
  }
}

async function exportBytes({ client }: Rig, name: string): Promise<Buffer> {
  const stream = await OpenedStream.open(client, `export-${++streams}`, {});
  const receiving = stream.receiveBytes();
  receiving.catch(() => {});
  try {
    await transfer(client, storeEnd({ name }), pack(ImageExportStream, { stream: stream.id, platforms: [host] }), {});
    return await receiving;
  } finally {
    stream.close();
  }
}

rootTest.serial(
  'import of an OCI archive, plain and compressed, unpacked; export of it reads back, here and by others',
  async (t) => {
    const rig = await useRig(t);
    const file = join(rig.dir, 'one.tar');
    writeOciArchive(file, image, 'example.test/one:1');
    const plain = readFileSync(file);
    const unpacks = [{ platform: host, snapshotter: 'overlayfs' }];
    t.deepEqual(await importBytes(rig, plain, { extraReferences: byAnnotation, unpacks }), ['example.test/one:1']);
    const ran = await rig.daemon.ctr(['run', '--rm', 'example.test/one:1', 'c', 'cat', '/etc/motd']);
    t.is(ran.stdout, 'hello from the second layer\n', ran.stderr);
    for (const packed of [gzipSync(plain, { level: 1 }), zstdCompressSync(plain)])
      t.deepEqual(await importBytes(rig, packed, { extraReferences: byAnnotation }), ['example.test/one:1']);
    t.is((await rig.daemon.ctr(['leases', 'ls', '-q'])).stdout, '');

    const exported = await exportBytes(rig, 'example.test/one:1');
    t.deepEqual(await exportBytes(rig, 'example.test/one:1'), exported);
    const out = join(rig.dir, 'out.tar');
    writeFileSync(out, exported);
    const listed = await run('tar', ['-tf', out]);
    t.deepEqual(
      listed.stdout
        .split('\n')
        .filter((name) => name.startsWith('blobs/sha256/') && name !== 'blobs/sha256/')
        .sort(),
      [...image.blobs.keys()].map((digest) => `blobs/${digest.replace(':', '/')}`).sort(),
    );
    t.is((await rig.daemon.ctr(['images', 'import', out], { namespace: 'again' })).code, 0);
    t.regex(
      (await rig.daemon.ctr(['images', 'check'], { namespace: 'again' })).stdout,
      /one:1 .* complete \(3\/3\).* true/,
    );
  },
);

rootTest.serial('import of what docker saves: manifests are made, tags are names in full', async (t) => {
  const rig = await useRig(t);
  const file = join(rig.dir, 'docker.tar');
  const { chainIds } = writeDockerArchive(file, { name: 'busy/box:2' });
  const names = await importBytes(rig, readFileSync(file), {
    extraReferences: byAnnotation,
    unpacks: [{ platform: host, snapshotter: 'overlayfs' }],
  });
  t.deepEqual(names, ['docker.io/busy/box:2']);
  const snapshots = await rig.daemon.ctr(['snapshots', 'ls']);
  t.true(snapshots.stdout.includes(chainIds.at(-1)!));
});

rootTest.serial('import of what docker saves, compressed: the layers are gzip, and unpack to the same', async (t) => {
  const rig = await useRig(t);
  const file = join(rig.dir, 'docker.tar');
  const { chainIds, layers } = writeDockerArchive(file, { name: 'busy/box:2' });
  const store = { extraReferences: byAnnotation, unpacks: [{ platform: host, snapshotter: 'overlayfs' }] };
  const names = await importBytes(rig, readFileSync(file), store, true);
  t.deepEqual(names, ['docker.io/busy/box:2']);
  t.true((await rig.daemon.ctr(['snapshots', 'ls'])).stdout.includes(chainIds.at(-1)!));
  const { stdout: listed } = await rig.daemon.ctr(['images', 'ls']);
  const { stdout: manifest } = await rig.daemon.ctr(['content', 'get', /sha256:[0-9a-f]{64}/.exec(listed)![0]]);
  const described = (JSON.parse(manifest) as { layers: { mediaType: string; digest: string; size: number }[] }).layers;
  t.is(described.length, layers.length);
  for (const [at, { mediaType, digest, size }] of described.entries()) {
    t.is(mediaType, 'application/vnd.docker.image.rootfs.diff.tar.gzip');
    const out = join(rig.dir, String(at));
    t.is((await run('sh', ['-c', `ctr -a ${rig.daemon.address} content get ${digest} > ${out}`])).code, 0);
    const bytes = readFileSync(out);
    t.is(bytes.length, size);
    t.deepEqual(gunzipSync(bytes), Buffer.from(layers[at]!.bytes));
  }
});

rootTest.serial('archives that lie or climb are refused, and leave nothing', async (t) => {
  const rig = await useRig(t);
  const wrong = imageLayout({ config: { Env: ['A=B'] } });
  const file = join(rig.dir, 'wrong.tar');
  const blobs = new Map([...wrong.blobs].map(([digest, bytes]) => [digest, Buffer.from(bytes)]));
  blobs.get(wrong.layers[1]!.descriptor.digest)!.writeUInt8(0xee, 20);
  writeOciArchive(file, { ...wrong, blobs }, 'example.test/wrong:1');
  await t.throwsAsync(importBytes(rig, readFileSync(file), { extraReferences: byAnnotation }), { message: /digest/ });
  await t.throwsAsync(importBytes(rig, randomBytes(4096), { extraReferences: byAnnotation }), {
    code: 'InvalidArgument',
  } as never);
  await t.throwsAsync(importBytes(rig, readFileSync(file).subarray(0, 3000), { extraReferences: byAnnotation }), {
    message: /unexpected end/,
  });
  t.is((await rig.daemon.ctr(['images', 'ls', '-q'])).stdout, '');
  t.is((await rig.daemon.ctr(['leases', 'ls', '-q'])).stdout, '');
});

/** A tar archive; the text is JSON when it is not bytes. */
function tarOf(...files: (Crafted | [name: string, content: unknown])[]): Buffer {
  const text = (content: unknown): Buffer =>
    Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
  return archive(...files.map((file) => entry(Array.isArray(file) ? { name: file[0], body: text(file[1]) } : file)));
}

rootTest.serial(
  '70, 71: what has no place in an archive of images is refused by its name, and nothing is left',
  async (t) => {
    const rig = await useRig(t);
    const { blobs, target } = layoutOf([{ bytes: archive(entry({ name: 'file', body: 'x' })) }]);
    const layout: [string, unknown] = ['oci-layout', { imageLayoutVersion: '1.0.0' }];
    const index: [string, unknown] = [
      'index.json',
      {
        schemaVersion: 2,
        manifests: [{ ...target, annotations: { 'io.containerd.image.name': 'example.test/good:1' } }],
      },
    ];
    const files = [...blobs].map(([digest, bytes]): [string, Buffer] => [`blobs/${digest.replace(':', '/')}`, bytes]);
    const [name, bytes] = files[0]!;
    const rest = files.slice(1);
    const manifest = `blobs/${target.digest.replace(':', '/')}`;
    const config = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digestOf(bytes)] } };
    const saved = (change: object): [string, unknown] => [
      'manifest.json',
      [{ Config: 'config.json', Layers: ['layer.tar'], RepoTags: ['example.test/good:1'], ...change }],
    ];
    const docker: [string, unknown][] = [
      ['config.json', config],
      ['layer.tar', bytes],
    ];
    const none = (crafted: Crafted) => tarOf(layout, crafted, ...rest, index);
    const cases: [what: string, archive: Buffer, code: string, words: RegExp][] = [
      [
        'a link out',
        none({ name, type: '2', link: '/etc/passwd' }),
        'InvalidArgument',
        /links to "\/etc\/passwd", outside of it/,
      ],
      [
        'a link up',
        none({ name, type: '2', link: '../../../etc/passwd' }),
        'InvalidArgument',
        /links to .* outside of it/,
      ],
      [
        'a hard link out',
        none({ name, type: '1', link: '../etc/passwd' }),
        'InvalidArgument',
        /links to .* outside of it/,
      ],
      [
        'a manifest that links to a file inside',
        tarOf(
          layout,
          ...files.filter(([path]) => path !== manifest),
          { name: manifest, type: '2', link: '../../index.json' },
          index,
        ),
        'NotFound',
        /content .*not found/,
      ],
      [
        'a device',
        none({ name, type: '3', devMajor: 1, devMinor: 5 }),
        'InvalidArgument',
        /blobs\/sha256\/\w+" is a .*, not a file/,
      ],
      ['a pipe', none({ name, type: '6' }), 'InvalidArgument', /blobs\/sha256\/\w+" is a fifo, not a file/],
      [
        'a name that climbs',
        none({ name: '../blobs/x', body: 'x' }),
        'InvalidArgument',
        /"\.\.\/blobs\/x" lies outside of it/,
      ],
      [
        'an absolute name',
        none({ name: '/etc/passwd', body: 'x' }),
        'InvalidArgument',
        /"\/etc\/passwd" lies outside of it/,
      ],
      [
        'a blob without digest',
        none({ name: 'blobs/sha256/x', body: 'x' }),
        'InvalidArgument',
        /has no digest in its name/,
      ],
      [
        'a blob of another algorithm',
        none({ name: `blobs/md5/${'0'.repeat(32)}`, body: 'x' }),
        'InvalidArgument',
        /has no digest in its name/,
      ],
      ['other bytes than its name says', none({ name, body: 'x' }), 'FailedPrecondition', /digest/],
      [
        'the same blob again with other bytes',
        tarOf(layout, [name, bytes], { name, body: Buffer.alloc(bytes.length, 1) }, ...rest, index),
        'FailedPrecondition',
        /has digest/,
      ],
      [
        'a layout of a GiB',
        header({ name: 'oci-layout', size: 2 ** 30 }),
        'InvalidArgument',
        /oci-layout has 1073741824 bytes, the limit is 20971520/,
      ],
      ['no index', tarOf(layout, ...files), 'InvalidArgument', /has an oci-layout and no index\.json/],
      ['an index that is none', tarOf(layout, ...files, ['index.json', [1]]), 'InvalidArgument', /is not an object/],
      ['neither kind', tarOf(...files), 'InvalidArgument', /neither an oci-layout nor a manifest\.json/],
      [
        'a layer that climbs',
        tarOf(...docker, saved({ Layers: ['../../x'] })),
        'InvalidArgument',
        /"\.\.\/\.\.\/x" lies outside of it/,
      ],
      [
        'an absolute layer',
        tarOf(...docker, saved({ Layers: ['/etc/passwd'] })),
        'InvalidArgument',
        /"\/etc\/passwd" lies outside of it/,
      ],
      [
        'a layer that is not there',
        tarOf(...docker, saved({ Layers: ['other.tar'] })),
        'InvalidArgument',
        /names "other\.tar", which is not in it/,
      ],
      [
        'a layer that links to itself',
        tarOf(...docker, { name: 'a', type: '2', link: 'a' }, saved({ Layers: ['a'] })),
        'InvalidArgument',
        /names "a", which is not in it/,
      ],
      [
        'a tag that is none',
        tarOf(...docker, saved({ RepoTags: ['example.test/UPPER:1'] })),
        'InvalidArgument',
        /reference "example\.test\/UPPER:1"/,
      ],
      [
        'tags that are no list',
        tarOf(...docker, saved({ RepoTags: 'x' })),
        'InvalidArgument',
        /RepoTags in its manifest\.json is not a list/,
      ],
      [
        'a hundred thousand tags',
        tarOf(...docker, saved({ RepoTags: Array(100_000).fill('a.test/b:1') })),
        'InvalidArgument',
        /RepoTags in its manifest\.json/,
      ],
      ['no config', tarOf(...docker, saved({ Config: 5 })), 'InvalidArgument', /has no Config/],
    ];
    for (const [what, tar, code, words] of cases) {
      const failure = (await t.throwsAsync(
        importBytes(rig, tar, { extraReferences: byAnnotation }),
        undefined,
        what,
      )) as Failure;
      t.is(failure.code, code as never, `${what}: ${failure.message}`);
      t.regex(failure.message, words, what);
      t.false(/\n|\.ts:/.test(failure.message), failure.message);
      t.is((await rig.daemon.ctr(['images', 'ls', '-q'])).stdout, '', what);
      t.is((await rig.daemon.ctr(['leases', 'ls', '-q'])).stdout, '', what);
      t.is((await rig.daemon.ctr(['content', 'active'])).stdout.trim().split('\n').length, 1, what);
    }
    // In whichever order, and by links that stay inside.
    for (const tar of [
      tarOf(index, ...files.toReversed(), layout),
      tarOf(saved({ Layers: ['l/layer.tar'] }), { name: 'l/layer.tar', type: '2', link: '../layer.tar' }, ...docker),
    ])
      t.deepEqual(await importBytes(rig, tar, { extraReferences: byAnnotation }), ['example.test/good:1']);
  },
);

rootTest.serial('tag, and echo of a stream', async (t) => {
  const rig = await useRig(t);
  const file = join(rig.dir, 'one.tar');
  writeOciArchive(file, image, 'example.test/one:1');
  await importBytes(rig, readFileSync(file), { extraReferences: byAnnotation });
  await transfer(rig.client, storeEnd({ name: 'example.test/one:1' }), storeEnd({ name: 'other/name' }), {});
  t.deepEqual((await rig.daemon.ctr(['images', 'ls', '-q'])).stdout.trim().split('\n'), [
    'example.test/one:1',
    'other/name',
  ]);
  await t.throwsAsync(transfer(rig.client, storeEnd({ name: 'none' }), storeEnd({ name: 'x' }), {}), {
    message: /not found/,
  });
  await t.throwsAsync(transfer(rig.client, registryEnd('a.test/b:1'), registryEnd('a.test/b:1'), {}), {
    message: /unable to transfer from OCI Registry/,
  });

  const bytes = randomBytes(3_000_001);
  const [from, to] = [
    await OpenedStream.open(rig.client, 'echo-in', {}),
    await OpenedStream.open(rig.client, 'echo-out', {}),
  ];
  const [received] = await Promise.all([
    to.receiveBytes(),
    from.sendBytes(bytes),
    typedClient(rig.client, TransferDefinition).transfer({
      source: pack(ImageImportStream, { stream: from.id }),
      destination: pack(ImageExportStream, { stream: to.id }),
      options: undefined,
    }),
  ]);
  t.true(received.equals(bytes));
  from.close();
  to.close();
});

needing('root', 'mount', 'program docker-registry').serial(
  'push, push again, mount from another repository, and pull it back with ctr',
  async (t) => {
    const rig = await useRig(t);
    const registry = await new Registry(join(rig.dir, 'registry')).start();
    t.teardown(() => registry.stop());
    const file = join(rig.dir, 'one.tar');
    writeOciArchive(file, image, 'example.test/one:1');
    await importBytes(rig, readFileSync(file), { extraReferences: byAnnotation });
    const push = (repository: string, name = 'example.test/one:1') =>
      transfer(rig.client, storeEnd({ name }), registryEnd(`${registry.host}/${repository}:1`), {});
    const layer = `layer-${image.layers[0]!.descriptor.digest}`;
    const last = (seen: Awaited<ReturnType<typeof push>>, name: string) =>
      seen.findLast((each) => each.name === name)?.event;
    t.is(last(await push('app/one'), layer), 'complete');
    t.is(last(await push('app/one'), layer), 'already exists');

    const name = `${registry.host}/app/one:1`;
    const { code, stderr } = await rig.daemon.ctr(['images', 'pull', '--plain-http', name], { namespace: 'theirs' });
    t.is(code, 0, stderr);
    await transfer(rig.client, registryEnd(name), storeEnd({ name }), {});
    const before = registry.log.length;
    t.is(last(await push('app/two', name), layer), 'already exists');
    t.false(
      registry.log.slice(before).some((line) => /PATCH|PUT .*blobs/.test(line)),
      'nothing was uploaded',
    );
  },
);
