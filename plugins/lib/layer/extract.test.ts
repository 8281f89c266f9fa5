/** What an unpacked layer looks like: against GNU tar and umoci on awkward trees, and entry by entry. */

import { execFileSync, spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { AT_FDCWD, fstatat, lgetxattr } from 'troupe/sys';
import { lacking, needing, rootTest, withoutPrivilege } from '../../../test/helpers/privilege.ts';
import { archive, base256, type Crafted, entry, header, pax } from '../tar/craft.ts';
import { awkward } from './awkward.ts';
import { inventory } from './inventory.ts';
import { scratch, unpack } from './scratch.ts';

const isRoot = lacking('root') === undefined;

const gnu = (args: string[], cwd: string): Buffer =>
  execFileSync('tar', args, { cwd, maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] });
const keepAll = ['--xattrs', '--xattrs-include=*', '--numeric-owner'];

const formats: Record<string, string[]> = {
  pax: ['--format=posix', ...keepAll],
  'pax, sparse 1.0': ['--format=posix', ...keepAll, '-S', '--sparse-version=1.0'],
  'pax, sparse 0.1': ['--format=posix', ...keepAll, '-S', '--sparse-version=0.1'],
  'pax, sparse 0.0': ['--format=posix', ...keepAll, '-S', '--sparse-version=0.0'],
  gnu: ['--format=gnu', '--numeric-owner'],
  'gnu, sparse': ['--format=gnu', '--numeric-owner', '-S'],
  'oldgnu, sparse': ['--format=oldgnu', '--numeric-owner', '-S'],
};
for (const [format, args] of Object.entries(formats)) {
  rootTest(`an awkward tree in ${format}, unpacked as GNU tar does`, async (t) => {
    const { path, root, directory } = scratch(t);
    const source = directory('source');
    awkward(source);
    const bytes = gnu(['-c', ...args, '-f', '-', '.'], source);
    writeFileSync(join(path, 'layer.tar'), bytes);
    const theirs = directory('theirs');
    gnu(['-x', ...keepAll, '-p', '-f', join(path, 'layer.tar')], theirs);
    const applied = await unpack(root, bytes);
    t.deepEqual(inventory(root), inventory(theirs));
    if (format.startsWith('pax')) t.deepEqual(inventory(root), inventory(source));
    t.deepEqual(applied.omitted, []);
    if (args.includes('-S')) t.true(fstatat(AT_FDCWD, join(root, 'sparse')).blocks < 1000);
  });
}

needing(
  'root',
  'mount',
  'program umoci',
)('an awkward tree, unpacked as umoci does', async (t) => {
  const { path, root, directory } = scratch(t);
  const source = directory('source');
  awkward(source);
  const bytes = gnu(['-c', '--format=posix', ...keepAll, '-f', '-', '.'], source);
  writeFileSync(join(path, 'layer.tar'), bytes);
  const image = join(path, 'image');
  const umoci = (...args: string[]): Buffer => execFileSync('umoci', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  umoci('init', '--layout', image);
  umoci('new', '--image', `${image}:x`);
  umoci('raw', 'add-layer', '--image', `${image}:x`, join(path, 'layer.tar'));
  umoci('raw', 'unpack', '--image', `${image}:x`, join(path, 'rootfs'));
  await unpack(root, bytes);
  t.deepEqual(inventory(root), inventory(join(path, 'rootfs')));
});

const dir = (name: string, more: Crafted = {}): Crafted => ({ name, type: '5', mode: 0o755, ...more });
const file = (name: string, body = '', more: Crafted = {}): Crafted => ({ name, body, ...more });

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

const cap20 = Buffer.from('0100000200200000000000000000000000000000', 'hex');
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

const xattr = (key: string, value: Buffer | string): Buffer =>
  Buffer.concat([pax({ [`SCHILY.xattr.${key}`]: value }), entry(file('a'))]);
const device = (major: number | Buffer, minor: number | Buffer, type = '3'): Buffer =>
  entry({ name: 'a', type, devMajor: major, devMinor: minor });
const refused: Record<string, [Buffer, RegExp]> = {
  'trusted.overlay.opaque': [
    xattr('trusted.overlay.opaque', 'y'),
    /extended attribute "trusted.overlay.opaque" is refused/,
  ],
  'trusted.anything': [xattr('trusted.anything', 'y'), /refused/],
  'an attribute name of 256 bytes': [xattr(`user.${'n'.repeat(251)}`, 'y'), /ERANGE/],
  'an attribute of 65 537 bytes': [xattr('user.x', Buffer.alloc(65_537)), /E2BIG/],
  'a whiteout of overlayfs': [device(0, 0), /character device 0:0/],
  'a major of 2^32': [device(base256(1n << 32n, 8), 0), /device 4294967296:0 is out of range/],
  'a major of -1': [device(base256(-1n, 8), 0), /out of range/],
  'a minor of 2^20': [device(1, base256(1n << 20n, 8), '4'), /out of range/],
  'a uid of 2^32-1': [entry(file('a', '', { uid: base256((1n << 32n) - 1n, 8) })), /uid 4294967295 is out of range/],
  'a uid of 2^32': [entry(file('a', '', { uid: base256(1n << 32n, 8) })), /uid 4294967296 is out of range/],
  'a uid of -1': [entry(file('a', '', { uid: base256(-1n, 8) })), /uid -1 is out of range/],
  'a gid of -1': [entry(file('a', '', { gid: base256(-1n, 8) })), /gid -1 is out of range/],
  'a mode of -1': [entry(file('a', '', { mode: base256(-1n, 8) })), /mode -1 is out of range/],
  'type Q': [entry({ name: 'a', type: 'Q' }), /unhandled tar header type "Q"/],
  'a component of 256 bytes': [Buffer.concat([pax({ path: 'c'.repeat(256) }), entry(file('x'))]), /ENAMETOOLONG/],
  'a parent component of 256 bytes': [
    Buffer.concat([pax({ path: `${'c'.repeat(256)}/x` }), entry(file('x'))]),
    /ENAMETOOLONG/,
  ],
  'a link to nothing': [entry({ name: 'a', type: '2', link: '' }), /ENOENT/],
  'a size of an entry larger than the stream': [header({ name: 'a', size: 5000 }), /unexpected end/],
};
for (const [name, [bytes, message]] of Object.entries(refused)) {
  test(`refused: ${name}`, async (t) => {
    const { root } = scratch(t);
    const failure = (await t.throwsAsync(unpack(root, archive(bytes)), { instanceOf: Failure, message })) as Failure;
    t.is(failure.code, 'InvalidArgument');
    t.regex(failure.message, /^layer x: .*: invalid argument$/s);
  });
}

test('depth: as deep as a path may be, and no deeper by a detour', async (t) => {
  const { root } = scratch(t);
  const deep = 'd/'.repeat(2000);
  await unpack(root, archive(pax({ path: `${deep}f` }), entry(file('x', 'deep'))));
  const detour = archive(
    pax({ path: `${deep}` }),
    entry(dir('x')),
    pax({ linkpath: deep }),
    entry({ name: 'l', type: '2' }),
    pax({ path: `l/${'e/'.repeat(100)}f` }),
    entry(file('x')),
  );
  const failure = (await t.throwsAsync(unpack(root, detour), { instanceOf: Failure })) as Failure;
  t.is(failure.code, 'InvalidArgument');
  // Replacing the top of it removes it all.
  await unpack(root, archive(entry(file('d', 'flat')), entry(file('l', 'flat'))));
  t.is(readFileSync(join(root, 'd'), 'utf8'), 'flat');
});

test('budgets: bytes, entries', async (t) => {
  const { root } = scratch(t);
  const bytes = archive(entry(file('a', 'x'.repeat(10_000))), entry(file('b')));
  for (const options of [{ maxBytes: 5000 }, { limits: { entries: 1 } }]) {
    const failure = (await t.throwsAsync(unpack(root, bytes, options), { instanceOf: Failure })) as Failure;
    t.is(failure.code, 'ResourceExhausted');
  }
});

test('cancelled', async (t) => {
  const { root } = scratch(t);
  const cancel = new Int32Array(new SharedArrayBuffer(4));
  Atomics.store(cancel, 0, 1);
  const failure = (await t.throwsAsync(unpack(root, archive(entry(file('a'))), { cancel }), {
    instanceOf: Failure,
  })) as Failure;
  t.is(failure.code, 'Canceled');
});

test('progress tells bytes', async (t) => {
  const { root } = scratch(t);
  const seen: number[] = [];
  const bytes = archive(entry(file('a', 'x'.repeat(10_000))));
  await unpack(root, bytes, { progress: (at) => seen.push(at), progressBytes: 1 });
  t.deepEqual(seen, [bytes.length]);
});

rootTest.serial('a full disk is ResourceExhausted, and descriptors are closed', async (t) => {
  const { root } = scratch(t);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', root]);
  const before = readdirSync('/proc/self/fd').length;
  const failure = (await t.throwsAsync(unpack(root, archive(entry(file('d/a', 'x'.repeat(200_000))))), {
    instanceOf: Failure,
  })) as Failure;
  t.is(failure.code, 'ResourceExhausted');
  t.regex(failure.message, /no space left on device/);
  t.is(readdirSync('/proc/self/fd').length, before);
});

test.serial('many directories: descriptors stay few', async (t) => {
  const { root } = scratch(t);
  const before = readdirSync('/proc/self/fd').length;
  let most = 0;
  const entries = Array.from({ length: 3000 }, (_, i) => entry(file(`d${i % 1000}/f${i}`)));
  await unpack(root, archive(...entries), {
    progressBytes: 1,
    progress: () => {
      most = Math.max(most, readdirSync('/proc/self/fd').length);
    },
  });
  t.is(readdirSync(root).length, 1000);
  t.true(most - before < 300, `${most - before} more`);
  t.is(readdirSync('/proc/self/fd').length, before);
});

needing(
  'root',
  'mount',
  'loop',
)('more hard links than the file system has is FailedPrecondition', async (t) => {
  const { path, root } = scratch(t);
  const disk = join(path, 'disk');
  execFileSync('truncate', ['-s', '64M', disk]);
  execFileSync('mkfs.ext4', ['-q', disk]);
  execFileSync('mount', ['-o', 'loop', disk, root]);
  const links = Array.from({ length: 65_100 }, (_, i) => entry({ name: `l${i}`, type: '1', link: 'a' }));
  const bytes = archive(entry(file('a')), ...links);
  const failure = (await t.throwsAsync(unpack(root, bytes), { instanceOf: Failure })) as Failure;
  t.is(failure.code, 'FailedPrecondition');
  t.regex(failure.message, /^layer x: entry "l64999": EMLINK: .*: failed precondition$/);
});

test('without privilege, what may not be done is left out and told', (t) => {
  const { path, root } = scratch(t);
  writeFileSync(
    join(path, 'layer.tar'),
    archive(
      entry(dir('d', { uid: 5, mode: 0o711 })),
      pax({ 'SCHILY.xattr.security.capability': cap20 }),
      entry(file('d/f', 'x', { uid: 5, gid: 6, mode: 0o4755 })),
      entry({ name: 'null', type: '3', devMajor: 1, devMinor: 3 }),
      entry({ name: 'pipe', type: '6' }),
      entry(dir('closed', { mode: 0o555 })),
      entry(file('closed/secret', 'x', { mode: 0 })),
      entry(file('closed/gone', 'x')),
    ),
  );
  writeFileSync(
    join(path, 'above.tar'),
    archive(
      entry(file('closed/more', 'x')),
      entry(file('closed/.wh.gone')),
      entry(dir('gone', { mode: 0 })),
      entry(dir('gone/deeper', { mode: 0 })),
      entry(file('gone', 'now a file')),
    ),
  );
  const code = `
    import { openSync, readFileSync } from 'node:fs';
    import { applyLayer } from ${JSON.stringify(import.meta.resolve('./apply.ts'))};
    async function* source(name) { yield readFileSync(${JSON.stringify(path)} + '/' + name); }
    for (const name of ['layer.tar', 'above.tar']) {
      const { omitted } = await applyLayer(openSync(${JSON.stringify(root)}), source(name), { subject: 'layer x', mode: 'apply' });
      console.log(omitted.join());
    }
  `;
  const [command = '', ...args] = [
    ...withoutPrivilege,
    process.execPath,
    '--input-type=module',
    '-e',
    code,
  ] as string[];
  const { stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  // Root without capabilities still makes what belongs to root.
  t.is(stdout.trim(), `ownership,xattr,device,mode\n${isRoot ? 'mode' : 'ownership,mode'}`, stderr);
  t.deepEqual(readdirSync(root).sort(), ['closed', 'd', 'gone', 'pipe']);
  t.deepEqual(readdirSync(join(root, 'closed')).sort(), ['more', 'secret']);
  t.is(lstatSync(join(root, 'closed')).mode & 0o7777, 0o755);
  t.is(lstatSync(join(root, 'closed/secret')).mode & 0o7777, 0o400);
  const status = lstatSync(join(root, 'd/f'));
  t.deepEqual([status.uid, status.mode & 0o7777], [process.geteuid!(), 0o4755]);
});
