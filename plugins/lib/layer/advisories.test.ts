/**
 * Advisories of other tar libraries, each as the archive that it is about: what went wrong there must end in a clear refusal here, or inside the root, and
 * outside nothing may change. Overlong, unbalanced and cut-off headers are tried one by one in ../tar/reader-refused.test.ts.
 */

import { existsSync, lstatSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, base256, type Crafted, entry, header, pax } from '../tar/craft.ts';
import { inventory } from './inventory.ts';
import { LayerPool } from './pool.ts';
import { canary, scratch, unpack } from './scratch.ts';

interface Case {
  /** What it did elsewhere. */
  readonly about: string;
  readonly bytes: Buffer;
  readonly refused?: RegExp;
  /** Paths in the root and their content. */
  readonly content?: Readonly<Record<string, string>>;
  readonly missing?: readonly string[];
}

const dir = (name: string): Buffer => entry({ name, type: '5', mode: 0o755 });
const file = (name: string, body = 'in', more: Crafted = {}): Buffer => entry({ name, body, ...more });
const symlink = (name: string, link: string): Buffer => entry({ name, type: '2', link });
const hardlink = (name: string, link: string): Buffer => entry({ name, type: '1', link });

const cases: Readonly<Record<string, Case>> = {
  'CVE-2015-8860': {
    about: 'a link above the root, then a file through it',
    bytes: archive(symlink('up', '../'), file('up/passwd')),
    content: { passwd: 'in' },
  },
  'CVE-2018-20834': {
    about: 'a hard link to a file outside, then a file of its name',
    bytes: archive(hardlink('x', '../etc/passwd'), file('x')),
    refused: /hard link to a file that does not exist/,
  },
  'CVE-2018-20835': {
    about: 'a hard link to an absolute file, then a file of its name',
    bytes: archive(hardlink('x', '/etc/passwd'), file('x')),
    refused: /hard link to a file that does not exist/,
  },
  'CVE-2021-32803': {
    about: 'a directory that was seen, replaced by a link, trusted still',
    bytes: archive(dir('a'), symlink('a', '../etc'), file('a/passwd')),
    content: { 'etc/passwd': 'in' },
  },
  'CVE-2021-32804': {
    about: 'slashes in front of an absolute name',
    bytes: archive(file('////etc/passwd')),
    content: { 'etc/passwd': 'in' },
  },
  'CVE-2021-37701': {
    about: 'a backslash taken for a slash by the cache of directories',
    bytes: archive(dir('a\\b'), symlink('a', '../etc'), file('a\\b/passwd'), file('a/passwd')),
    content: { 'a\\b/passwd': 'in', 'etc/passwd': 'in' },
  },
  'CVE-2021-37712': {
    about: 'two names that one file system takes for the same, trusted as one',
    bytes: archive(
      entry({ name: Buffer.from('ñ'), type: '5', mode: 0o755 }),
      entry({ name: Buffer.from('n\u0303'), type: '2', link: '../etc' }),
      entry({ name: Buffer.from('ñ/passwd'), body: 'in' }),
    ),
    content: { 'ñ/passwd': 'in' },
    missing: ['etc/passwd'],
  },
  'CVE-2021-37713': {
    about: 'a drive letter in front of a climb',
    bytes: archive(file('C:../passwd'), file('C:/../../passwd')),
    content: { 'C:../passwd': 'in', passwd: 'in' },
  },
  'CVE-2022-2879, CVE-2025-58183': {
    about: 'a header body or a sparse map as large as it says',
    bytes: header({ type: 'x', size: 1 << 30 }),
    refused: /header body of 1073741824 bytes is too long/,
  },
  'CVE-2024-12905, CVE-2026-26960': {
    about: 'a hard link through a link',
    bytes: archive(symlink('l', '..'), hardlink('x', 'l/passwd'), file('x')),
    refused: /hard link to a file that does not exist/,
  },
  'CVE-2024-28863': {
    about: 'a name of a thousand directories',
    bytes: archive(pax({ path: `${'d/'.repeat(1000)}leaf` }), file('x')),
    content: { [`${'d/'.repeat(1000)}leaf`]: 'in' },
  },
  'CVE-2025-48387': {
    about: 'a link of a link, each inside when looked at alone',
    bytes: archive(dir('a'), symlink('a/b', '.'), symlink('a/c', 'b/../..'), symlink('d', 'a/c/..'), file('d/passwd')),
    content: { passwd: 'in' },
  },
  'CVE-2025-59343': {
    about: "a directory beside the root whose name begins with the root's",
    bytes: archive(symlink('l', '../root-evil'), file('l/x'), file('../root-evil/y')),
    content: { 'root-evil/x': 'in', 'root-evil/y': 'in' },
  },
  'CVE-2025-62518': {
    about: 'TARmageddon: the size of the block believed instead of that of the extended header',
    bytes: archive(
      pax({ size: '1024' }),
      header({ name: 'outer', size: 0 }),
      entry({ name: 'smuggled' }),
      Buffer.alloc(512),
    ),
    missing: ['smuggled'],
  },
  'CVE-2026-23745': {
    about: 'absolute targets of links',
    bytes: archive(hardlink('h', '/etc/passwd'), symlink('s', '/etc/passwd')),
    refused: /hard link to a file that does not exist/,
  },
  'CVE-2026-23950': {
    about: 'names that differ in a ligature only, unpacked at once',
    bytes: archive(entry({ name: Buffer.from('ﬀ'), type: '2', link: '../etc' }), dir('ff'), file('ff/passwd')),
    content: { 'ff/passwd': 'in' },
    missing: ['etc/passwd'],
  },
  'GHSA-34x7-hfp2-rc4v': {
    about: 'a hard link with dots in the middle',
    bytes: archive(dir('a'), hardlink('x', 'a/../../etc/passwd')),
    refused: /hard link to a file that does not exist/,
  },
  'CVE-2026-53655': {
    about: 'an extended size taken for that of the long name behind it',
    bytes: archive(
      pax({ size: '2' }),
      entry({ type: 'L', body: 'long\0' }),
      header({ name: 'x', size: 2 }),
      Buffer.from('in'.padEnd(512, '\0')),
    ),
    content: { long: 'in' },
    missing: ['x'],
  },
  'CVE-2026-59874': {
    about: 'a negative size, which made a reader go in circles',
    bytes: archive(entry({ size: base256(-512n, 12) })),
    refused: /size is negative/,
  },
  'CVE-2026-59875': {
    about: 'a NUL in a name, which two readers see end at two places',
    bytes: archive(pax({ path: 'harmless\0/../../etc/passwd' }), file('x')),
    refused: /path with a NUL/,
  },
  'GHSA-w8wr': {
    about: 'a name that is a number',
    bytes: archive(pax({ path: '42' }), file('x')),
    content: { '42': 'in' },
  },
};

for (const [name, { about, bytes, refused, content = {}, missing = [] }] of Object.entries(cases)) {
  test(`${name}: ${about}`, async (t) => {
    const { path, root } = scratch(t);
    const untouched = canary(path);
    const work = unpack(root, bytes);
    if (refused === undefined) await work;
    else {
      const failure = await t.throwsAsync(work, { instanceOf: Failure, message: refused });
      t.is((failure as Failure).code, 'InvalidArgument');
    }
    for (const [file, expected] of Object.entries(content)) t.is(readFileSync(join(root, file), 'utf8'), expected);
    for (const file of missing) t.false(existsSync(join(root, file)), file);
    t.true(untouched());
  });
}

test('a link may say what it likes: it is stored, and not followed when it is described', async (t) => {
  const { path, root } = scratch(t);
  const untouched = canary(path);
  await unpack(
    root,
    archive(
      symlink('s', '../../../../etc/passwd'),
      entry({ name: 's', type: '2', link: '/etc/passwd', mode: 0, uid: 1 }),
    ),
  );
  t.is(readlinkSync(join(root, 's')), '/etc/passwd');
  t.true(lstatSync(join(root, 's')).isSymbolicLink());
  t.true(untouched());
});

for (const [format, pack] of [
  ['gzip', gzipSync],
  ['zstd', zstdCompressSync],
] as const) {
  test(`CVE-2026-59873: a thousand times as large as it looks, ${format}, ends at the budget and leaves nothing beyond it`, async (t) => {
    const { path, root, directory } = scratch(t);
    const pool = new LayerPool({ threads: 2, queue: 2 });
    t.teardown(() => pool.close());
    const bytes = pack(archive(...Array.from({ length: 8 }, (_, i) => file(`f${i}`, '\0'.repeat(8 << 20)))));
    t.true(bytes.length < 200_000);
    const blob = join(path, 'blob');
    writeFileSync(blob, bytes);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const mounts = [{ type: 'bind', source: root, options: ['rw'] }];
    const task = { subject: 'layer x', blob, digest, size: bytes.length, mounts, scratch: directory('s'), sync: false };
    const failure = await t.throwsAsync(pool.apply({ ...task, maxBytes: 20 << 20 }, new AbortController().signal), {
      instanceOf: Failure,
      message: /^layer x: more than 20971520 bytes unpacked: resource exhausted$/,
    });
    t.is((failure as Failure).code, 'ResourceExhausted');
    t.true(inventory(root).length <= 3);
  });
}
