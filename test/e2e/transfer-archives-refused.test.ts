/** Archives that lie, climb or are none, in a real daemon: each is refused in words, and nothing of it is left. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Failure } from 'troupe/plugin';
import { archive, type Crafted, entry, header } from '../../plugins/lib/tar/craft.ts';
import { byAnnotation, importBytes, useRig } from '../helpers/archives.ts';
import { imageLayout, sha256 as digestOf, writeOciArchive } from '../helpers/image.ts';
import { layoutOf } from '../helpers/layout.ts';
import { rootTest } from '../helpers/privilege.ts';

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
