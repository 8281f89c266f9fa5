/** What an unpacked layer looks like, entry by entry. */

import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { lgetxattr } from 'troupe/sys';
import { lacking } from '../../../test/helpers/privilege.ts';
import { archive, base256, entry, pax } from '../tar/craft.ts';
import { cap20, dir, file } from './crafted.ts';
import { scratch, unpack } from './scratch.ts';

const isRoot = lacking('root') === undefined;

test('the result tells what was read', async (t) => {
  const { root } = scratch(t);
  const bytes = Buffer.concat([
    archive(...[dir('d'), file('d/f', 'x'), file('.wh.gone')].map(entry)),
    Buffer.from('behind the end'),
  ]);
  const applied = await unpack(root, bytes, { algorithm: 'sha512' });
  const hash = (algorithm: string): string =>
    execFileSync(`${algorithm}sum`, { input: bytes }).toString().split(' ')[0]!;
  t.is(applied.diffId, `sha256:${hash('sha256')}`);
  t.is(applied.digest, `sha512:${hash('sha512')}`);
  t.is(applied.size, bytes.length);
  t.is(applied.compressedSize, bytes.length);
  t.deepEqual([applied.entries, applied.files, applied.compression], [3, 1, 'none']);
});

test('last wins: file, directory, link, file', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      ...[
        file('a', '1'),
        dir('a'),
        file('a/below', '2'),
        { name: 'a', type: '2', link: 'x' },
        file('a', '3', { mode: 0o600 }),
      ].map(entry),
    ),
  );
  t.is(readFileSync(join(root, 'a'), 'utf8'), '3');
  t.is(lstatSync(join(root, 'a')).mode & 0o7777, 0o600);
});

test('a hundred thousand times the same name', async (t) => {
  const { root } = scratch(t);
  const one = entry(file('same', 'x'));
  await unpack(root, archive(...Array.from({ length: 100_000 }, () => one), entry(file('same', 'last'))));
  t.is(readFileSync(join(root, 'same'), 'utf8'), 'last');
});

test('directories keep the times they are given, whatever is written into them afterwards', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      ...[dir('d', { mtime: 1000 }), dir('d/e', { mtime: 2000 }), file('d/e/f'), file('d/g'), file('d/.wh.h')].map(
        entry,
      ),
    ),
  );
  t.is(lstatSync(join(root, 'd')).mtimeMs, 1_000_000);
  t.is(lstatSync(join(root, 'd/e')).mtimeMs, 2_000_000);
});

test('a directory entry for a directory that is there merges with it', async (t) => {
  const { root } = scratch(t);
  mkdirSync(join(root, 'd'));
  writeFileSync(join(root, 'd/lower'), 'lower');
  await unpack(root, archive(entry(dir('d', { mode: 0o700, uid: 7 })), entry(file('d/upper', 'upper'))));
  t.deepEqual(readdirSync(join(root, 'd')).sort(), ['lower', 'upper']);
  t.is(lstatSync(join(root, 'd')).mode & 0o7777, 0o700);
  t.is(lstatSync(join(root, 'd')).uid, isRoot ? 7 : process.geteuid!());
});

test.serial('implied directories are 0755, whatever the umask', async (t) => {
  const { root } = scratch(t);
  const umask = process.umask(0o077);
  try {
    await unpack(root, archive(entry(file('a/b/c', 'x', { mode: 0o666 }))));
  } finally {
    process.umask(umask);
  }
  t.is(lstatSync(join(root, 'a/b')).mode & 0o7777, 0o755);
  t.is(lstatSync(join(root, 'a/b/c')).mode & 0o7777, 0o666);
});

test('modes: setuid kept, bits beyond the twelve dropped', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      entry(file('a', 'x', { mode: 0o7777 })),
      entry(file('b', 'x', { mode: 0o100755 })),
      entry(file('c', 'x', { mode: 0o177777 })),
    ),
  );
  t.deepEqual(
    ['a', 'b', 'c'].map((name) => lstatSync(join(root, name)).mode & 0o7777),
    [0o7777, 0o755, 0o7777],
  );
});

test('times: to the nanosecond; those that no disk holds are 0', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      pax({ mtime: '1234567890.123456789', atime: '1' }),
      entry(file('ns')),
      entry(file('negative', '', { mtime: base256(-1n, 12) })),
      entry(file('huge', '', { mtime: base256((1n << 63n) - 1n, 12) })),
      pax({ mtime: '9'.repeat(19) }),
      entry(file('digits')),
      pax({ mtime: '1', atime: '5' }),
      entry(file('later')),
    ),
  );
  const times = (name: string): bigint[] => {
    const { atimeNs, mtimeNs } = lstatSync(join(root, name), { bigint: true });
    return [atimeNs, mtimeNs];
  };
  t.deepEqual(times('ns'), [1_234_567_890_123_456_789n, 1_234_567_890_123_456_789n]);
  for (const name of ['negative', 'huge', 'digits']) t.deepEqual(times(name), [0n, 0n]);
  t.deepEqual(times('later'), [5_000_000_000n, 1_000_000_000n]);
});

test('AUFS bookkeeping is skipped, a root entry ignored, a global header applied to nothing', async (t) => {
  const { root } = scratch(t);
  const mode = lstatSync(root).mode;
  await unpack(
    root,
    archive(
      entry(dir('./', { mode: 0o111 })),
      entry(file('.wh..wh.aufs')),
      entry(dir('.wh..wh.plnk')),
      entry(file('.wh..wh.plnk/1.2', 'x')),
      entry(file('d/.wh..wh.orph', 'x')),
      pax({ path: 'global' }, 'g'),
      entry(file('a', 'x')),
      entry(file('.')),
      entry({ name: '/', type: '2', link: 'x' }),
    ),
  );
  t.deepEqual(readdirSync(root), ['a']);
  t.is(lstatSync(root).mode, mode);
});

test('names that differ in case or Unicode form only, and bytes that are no text', async (t) => {
  const { root } = scratch(t);
  const names = ['a', 'A', 'ñ', 'n\u0303', 'ﬀ', 'ff', '\u202eexe'].map((name) => Buffer.from(name));
  names.push(Buffer.from([0x66, 0xff]));
  await unpack(root, archive(...names.map((name) => entry({ name }))));
  t.deepEqual(
    readdirSync(root, { encoding: 'buffer' })
      .map((name) => name.toString('hex'))
      .sort(),
    names.map((name) => name.toString('hex')).sort(),
  );
});

test('a hard link may repeat, and gives its attributes to the file', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      ...[
        file('a', 'x', { mode: 0o600 }),
        { name: 'b', type: '1', link: 'a', mode: 0o640, uid: 5 },
        { name: 'b', type: '1', link: 'a/', mode: 0o644 },
      ].map(entry),
    ),
  );
  t.is(lstatSync(join(root, 'a')).nlink, 2);
  t.is(lstatSync(join(root, 'a')).mode & 0o7777, 0o644);
});

test('extended attributes are bytes', async (t) => {
  const { root } = scratch(t);
  await unpack(
    root,
    archive(
      pax({
        'SCHILY.xattr.security.capability': cap20,
        'SCHILY.xattr.user.x': Buffer.from([0, 10, 61]),
        'LIBARCHIVE.xattr.user.y': 'AAE=',
      }),
      entry(file('a', 'x', { uid: 5 })),
    ),
  );
  t.deepEqual(lgetxattr(join(root, 'a'), 'security.capability'), isRoot ? cap20 : undefined);
  t.deepEqual(lgetxattr(join(root, 'a'), 'user.x'), Buffer.from([0, 10, 61]));
  t.deepEqual(lgetxattr(join(root, 'a'), 'user.y'), Buffer.from([0, 1]));
});
