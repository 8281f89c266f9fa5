/** How far unpacking goes: limits of depth, bytes, entries, links, descriptors and disk, progress on the way, and an end before the end. */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { needing, rootTest } from '../../../test/helpers/privilege.ts';
import { archive, entry, pax } from '../tar/craft.ts';
import { dir, file } from './crafted.ts';
import { scratch, unpack } from './scratch.ts';

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
