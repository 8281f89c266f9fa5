/** Layers, applied to overlays that are not mounted, and to what has to be. */
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { lgetxattr, mount, mountinfo } from 'troupe/sys';
import { lacking, rootTest } from '../../test/helpers/privilege.ts';
import { inventory } from '../lib/layer/inventory.ts';
import { archive, entry } from '../lib/tar/craft.ts';
import { TAR, bind, detached, id, layer, overlay, refusal, setUp, sha256 } from '../../test/helpers/differ.ts';

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
