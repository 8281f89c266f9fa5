/**
 * Three ways to the same file system: a layer applied to the mounted overlay; extracted into the upper directory with the layers below known; extracted
 * without knowing them and completed afterwards. What is seen through the mount must be equal, and is said once, by the first.
 */

import { closeSync, constants, cpSync, mkdirSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { AT_FDCWD, fstatat, lgetxattr, mount, O_PATH } from 'troupe/sys';
import { rootTest } from '../../../test/helpers/privilege.ts';
import { archive, type Crafted, entry, pax } from '../tar/craft.ts';
import { completeLayer } from './complete.ts';
import { inventory } from './inventory.ts';
import { LowerLayers } from './lower.ts';
import { type Scratch, scratch, unpack } from './scratch.ts';

const dir = (name: string, more: Crafted = {}): Crafted => ({ name, type: '5', mode: 0o755, mtime: 1111, ...more });
const file = (name: string, body = name, more: Crafted = {}): Crafted => ({ name, body, mtime: 2222, ...more });
const symlink = (link: string, name: string): Crafted => ({ name, type: '2', link, mtime: 3333 });
const link = (target: string, name: string): Crafted => ({ name, type: '1', link: target, mtime: 2222 });
const whiteout = (name: string): Crafted => file(name, '');

/** Mounts `lower` (topmost first) below an empty upper, or below the given one. */
function overlay(s: Scratch, name: string, lower: readonly string[], upper: string): string {
  const target = s.directory(`${name}-mnt`);
  const work = s.directory(`${name}-work`);
  mount('overlay', target, 'overlay', 0, `lowerdir=${lower.join(':')},upperdir=${upper},workdir=${work}`);
  return target;
}

interface Case {
  /** Layers below, bottom first. */
  lower: Buffer[][];
  layer: Buffer[];
  /** The layer cannot be completed afterwards: it has to be unpacked anew. */
  anew?: true;
  /** All three refuse. */
  refused?: RegExp;
}

const of = (...entries: Crafted[]): Buffer[] => entries.map(entry);
const base = of(
  dir('d', { mode: 0o750, uid: 7, gid: 8 }),
  dir('d/e', { mode: 0o1777, uid: 9 }),
  file('d/e/f'),
  file('d/g', 'g', { uid: 5, mode: 0o4755 }),
  dir('usr'),
  dir('usr/lib', { mode: 0o711, uid: 3 }),
  file('usr/lib/libc'),
  symlink('usr/lib', 'lib'),
  symlink('/usr/lib', 'lib64'),
  file('plain'),
  symlink('plain', 'link'),
);
const withAttribute = [
  pax({ 'SCHILY.xattr.user.a': 'b', mtime: '1.5' }),
  ...of(dir('x', { mode: 0o700 })),
  ...of(file('x/y')),
];

const cases: Record<string, Case> = {
  'an implied directory has the attributes of the one below': { lower: [base], layer: of(file('d/e/new')) },
  'extended attributes and times too': { lower: [withAttribute], layer: of(file('x/z')) },
  'the topmost layer that has it decides': {
    lower: [base, of(dir('d', { mode: 0o711, uid: 70 }))],
    layer: of(file('d/e/new')),
  },
  'an implied directory that nobody has': { lower: [base], layer: of(file('n/o/p')) },
  'an implied directory that is listed afterwards': {
    lower: [base],
    layer: of(file('d/e/new'), dir('d/e', { mode: 0o700 })),
  },
  'through a link of a lower layer': { lower: [base], layer: of(file('lib/new'), file('lib64/newer')), anew: true },
  'a whiteout through a link of a lower layer': { lower: [base], layer: of(whiteout('lib/.wh.libc')), anew: true },
  'through a link of a lower layer that is replaced afterwards': {
    lower: [base],
    layer: of(file('lib/new'), dir('lib', { mode: 0o700 }), file('lib/newer')),
    anew: true,
  },
  'a directory over a link of a lower layer': { lower: [base], layer: of(dir('lib'), file('lib/new')) },
  'a directory over a file of a lower layer': { lower: [base], layer: of(dir('plain'), file('plain/new')) },
  'a file over a directory of a lower layer': { lower: [base], layer: of(file('d')) },
  'a file over a link of a lower layer': { lower: [base], layer: of(file('link', 'x')) },
  'a file below a file of a lower layer': {
    lower: [base],
    layer: of(file('plain/new')),
    refused: /is not a directory/,
  },
  'whiteouts of a file, a directory, a link, nothing': {
    lower: [base],
    layer: of(
      whiteout('.wh.plain'),
      whiteout('.wh.d'),
      whiteout('.wh.lib'),
      whiteout('.wh.nothing'),
      whiteout('usr/lib/.wh.libc'),
    ),
  },
  'a whiteout spares what its own layer brings, before and after it': {
    lower: [base],
    layer: of(file('plain', 'mine'), whiteout('.wh.plain'), whiteout('.wh.link'), symlink('d', 'link')),
  },
  'a whiteout of a directory, then the directory': {
    lower: [base],
    layer: of(whiteout('.wh.d'), dir('d'), file('d/new')),
  },
  'a whiteout of a directory, then something in it': { lower: [base], layer: of(whiteout('.wh.d'), file('d/e/new')) },
  'the directory, then a whiteout of it': {
    lower: [base],
    layer: of(dir('d', { mode: 0o700 }), file('d/new'), whiteout('.wh.d')),
  },
  'something in a directory, then a whiteout of it': { lower: [base], layer: of(file('d/e/new'), whiteout('.wh.d')) },
  'opaque first': { lower: [base], layer: of(dir('d'), whiteout('d/.wh..wh..opq'), file('d/e/new')) },
  'opaque last': { lower: [base], layer: of(file('d/e/new'), whiteout('d/.wh..wh..opq')) },
  'opaque, twice and within': {
    lower: [base],
    layer: of(file('d/e/new'), whiteout('d/e/.wh..wh..opq'), whiteout('d/.wh..wh..opq'), whiteout('d/.wh..wh..opq')),
  },
  'an opaque root': {
    lower: [base, of(file('top'))],
    layer: of(file('d/new'), whiteout('.wh..wh..opq'), file('mine')),
  },
  'an opaque root, then a directory that is implied': {
    lower: [base],
    layer: of(whiteout('.wh..wh..opq'), file('d/e/new')),
  },
  'file, then directory: the one below does not come back': {
    lower: [base],
    layer: of(file('d'), dir('d'), file('d/new')),
  },
  'link, then directory': { lower: [base], layer: of(symlink('usr', 'd'), dir('d'), file('d/new')) },
  'directory, then file, then directory': { lower: [base], layer: of(dir('d'), file('d'), dir('d')) },
  'a whiteout in the layer below hides what is below it': {
    lower: [base, of(whiteout('.wh.d'))],
    layer: of(file('d/e/new')),
  },
  'an opaque directory in the layer below': {
    lower: [base, of(dir('d', { mode: 0o701 }), whiteout('d/.wh..wh..opq'))],
    layer: of(file('d/e/new')),
  },
  'a file between two layers that have a directory': {
    lower: [of(dir('d'), file('d/lowest')), of(file('d')), of(dir('d', { mode: 0o700 }), file('d/upper'))],
    layer: of(file('d/new')),
  },
  'a hard link to a file of a lower layer': {
    lower: [base],
    layer: of(link('d/g', 'd/e/again'), link('d/g', 'more')),
    anew: true,
  },
  'a hard link through a link of a lower layer': { lower: [base], layer: of(link('lib/libc', 'again')), anew: true },
  'a hard link to a link of a lower layer': { lower: [base], layer: of(link('link', 'again')), anew: true },
  'a hard link to what a whiteout has hidden': {
    lower: [base],
    layer: of(whiteout('.wh.plain'), link('plain', 'x')),
    refused: /does not exist/,
  },
  'a hard link to a directory of a lower layer': {
    lower: [base],
    layer: of(link('usr/lib', 'x')),
    refused: /hard link to a directory/,
  },
  'a hard link to nothing': { lower: [base], layer: of(link('nothing', 'x')), refused: /does not exist/ },
  'a directory that was listed stays as listed': {
    lower: [base],
    layer: of(dir('d', { mode: 0o700, uid: 1 }), file('d/e/new')),
  },
};

async function refusal(t: ExecutionContext, work: Promise<unknown>, message: RegExp): Promise<void> {
  const failure = (await t.throwsAsync(work, { instanceOf: Failure, message })) as Failure;
  t.is(failure.code, 'InvalidArgument');
}

for (const [name, { lower, layer, anew, refused }] of Object.entries(cases)) {
  rootTest(name, async (t) => {
    const s = scratch(t);
    const lowers: string[] = [];
    for (const [i, entries] of lower.entries()) {
      const path = s.directory(`lower${i}`);
      await unpack(path, archive(...entries), { mode: 'overlay', lower: lowers });
      lowers.unshift(path);
    }
    const bytes = archive(...layer);
    const mounted = overlay(s, 'apply', lowers, s.directory('apply-upper'));
    const known = s.directory('known');
    const unknown = s.directory('unknown');
    if (refused !== undefined) {
      await refusal(t, unpack(mounted, bytes), refused);
      await refusal(t, unpack(known, bytes, { mode: 'overlay', lower: lowers }), refused);
      return;
    }
    await unpack(mounted, bytes);
    const expected = inventory(mounted, { directoryTimes: false });

    const applied = await unpack(known, bytes, { mode: 'overlay', lower: lowers });
    t.deepEqual(applied.deferred, { implied: [], rootOpaque: false, incomplete: false });
    t.deepEqual(inventory(overlay(s, 'known', lowers, known), { directoryTimes: false }), expected);

    const { deferred } = await unpack(unknown, bytes, { mode: 'overlay' });
    const open = (path: string): number => openSync(path, O_PATH | constants.O_DIRECTORY);
    const fds = [unknown, ...lowers].map(open);
    const completed = completeLayer(fds[0]!, new LowerLayers(fds.slice(1)), deferred);
    for (const fd of fds) closeSync(fd);
    t.is(completed, anew !== true);
    if (anew !== true)
      t.deepEqual(inventory(overlay(s, 'unknown', lowers, unknown), { directoryTimes: false }), expected);
    // Times of directories: what was not listed is as it was below.
    const given = (path: string): string[] => inventory(path).map((line) => line.replace(/mtime=1[7-9]\d{17}/, 'now'));
    if (anew !== true) t.deepEqual(given(known), given(unknown));
  });
}

rootTest('marks are those of overlayfs', async (t) => {
  const { root } = scratch(t);
  await unpack(root, archive(...of(whiteout('.wh.gone'), dir('d'), whiteout('d/.wh..wh..opq'))), { mode: 'overlay' });
  const status = fstatat(AT_FDCWD, join(root, 'gone'));
  t.deepEqual([status.kind, status.rdev], ['character', 0]);
  t.is(lgetxattr(join(root, 'd'), 'trusted.overlay.opaque')?.toString(), 'y');
});

test('thirty thousand opaque markers in a directory of as many files', async (t) => {
  const { root } = scratch(t);
  const count = 30_000;
  const lower = archive(...Array.from({ length: count }, (_, i) => entry(file(`d/${i}`, ''))));
  await unpack(root, lower);
  const marker = entry(whiteout('d/.wh..wh..opq'));
  await unpack(root, archive(entry(file('d/mine')), ...Array.from({ length: count }, () => marker)));
  t.deepEqual(readdirSync(join(root, 'd')), ['mine']);
});

test('opaque markers on each level of a deep tree', async (t) => {
  const { root } = scratch(t);
  const depth = 500;
  const path = (length: number): string => 'd/'.repeat(length);
  mkdirSync(join(root, path(depth)), { recursive: true });
  cpSync('/etc/hostname', join(root, path(depth), 'lower'));
  const markers: Buffer[] = [];
  for (let length = depth; length > 0; length--)
    markers.push(pax({ path: `${path(length)}.wh..wh..opq` }), entry(file('x', '')));
  await unpack(root, archive(pax({ path: `${path(depth)}mine` }), entry(file('x')), ...markers));
  t.deepEqual(readdirSync(join(root, path(depth))), ['mine']);
});
