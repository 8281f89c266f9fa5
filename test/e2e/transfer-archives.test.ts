/** Archives in and out through streams, in a real daemon: what comes out is what went in. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { byAnnotation, exportBytes, host, image, importBytes, useRig } from '../helpers/archives.ts';
import { run } from '../helpers/command.ts';
import { writeDockerArchive, writeOciArchive } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';

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
