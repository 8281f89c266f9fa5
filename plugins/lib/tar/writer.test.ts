import { execFileSync } from 'node:child_process';
import test from 'ava';
import type { TarHeader } from './format.ts';
import { formatRecord, formatTime, parseTime } from './pax.ts';
import { TarReader } from './reader.ts';
import { encodeHeader, endOfArchive, padding, type TarEntry } from './writer.ts';

function readBack(...entries: TarEntry[]): TarHeader[] {
  const headers: TarHeader[] = [];
  const reader = new TarReader({ entry: (header) => headers.push(header), data() {}, end() {} });
  for (const entry of entries) {
    reader.push(encodeHeader(entry));
    // Bodies of zeros, in whole blocks, without holding them.
    let rest = (entry.size ?? 0) + padding(entry.size ?? 0).length;
    const zeros = Buffer.alloc(1 << 24);
    for (; rest > 0; rest -= Math.min(rest, zeros.length)) reader.push(zeros.subarray(0, Math.min(rest, zeros.length)));
  }
  reader.push(endOfArchive);
  reader.finish();
  return headers;
}

const at = { seconds: 1_600_000_000, nanoseconds: 0 };
const named = (name: Buffer | string): TarEntry => ({
  type: 'file',
  name: Buffer.from(name as string),
  mode: 0o644,
  mtime: at,
});

for (const [name, blocks] of [
  ['short', 1],
  ['n'.repeat(100), 1],
  [`${'p'.repeat(155)}/${'n'.repeat(100)}`, 1],
  ['n'.repeat(101), 3],
  [`${'p'.repeat(156)}/n`, 3],
  [`${'p'.repeat(60)}/${'n'.repeat(101)}`, 3],
  [`${'d/'.repeat(60)}`, 1],
  [`${'n'.repeat(101)}/`, 3],
  ['ünïcode', 3],
  [Buffer.from([0xff, 0xfe]), 3],
  ['d/'.repeat(2000), 2 + 8],
] as const) {
  test(`a name of ${name.length}: ${name.toString().slice(0, 20)}`, (t) => {
    const entry = named(name as string);
    t.is(encodeHeader(entry).length, blocks * 512);
    t.deepEqual(
      readBack(entry, named('after')).map((header) => header.name),
      [Buffer.from(name as string), Buffer.from('after')],
    );
  });
}

test('everything that ustar cannot say', (t) => {
  const entry: TarEntry = {
    type: 'symlink',
    name: Buffer.from('a'),
    linkName: Buffer.from('l'.repeat(300)),
    mode: 0o7777,
    uid: 4_294_967_294,
    gid: 2_097_152,
    mtime: { seconds: -2, nanoseconds: 750_000_000 },
    xattrs: new Map([
      ['user.b', Buffer.from([0, 10, 61, 255])],
      ['user.a', Buffer.alloc(0)],
    ]),
  };
  const [header] = readBack(entry);
  t.deepEqual(header!.linkName, entry.linkName);
  t.deepEqual([header!.mode, header!.uid, header!.gid], [0o7777, 4_294_967_294, 2_097_152]);
  t.deepEqual(header!.mtime, entry.mtime);
  t.deepEqual(header!.xattrs.get('user.b'), Buffer.from([0, 10, 61, 255]));
  t.deepEqual(header!.xattrs.get('user.a'), Buffer.alloc(0));
  // The order in which attributes were found does not show.
  const reversed = { ...entry, xattrs: new Map([...entry.xattrs!].reverse()) };
  t.true(encodeHeader(reversed).equals(encodeHeader(entry)));
});

test('more than 8 GiB', (t) => {
  const size = 8 * 2 ** 30;
  const header = encodeHeader({ ...named('big'), size });
  t.is(header.length, 3 * 512);
  let seen = 0;
  const reader = new TarReader({ entry: (entry) => (seen = entry.size), data() {}, end() {} });
  reader.push(header);
  t.is(seen, size);
});

test('every type, read by GNU tar', (t) => {
  const types = ['file', 'directory', 'symlink', 'hardlink', 'char', 'block', 'fifo'] as const;
  const archive = Buffer.concat([
    ...types.map((type) =>
      encodeHeader({
        type,
        name: Buffer.from(type),
        mode: 0o640,
        uid: 3_000_000,
        mtime: { seconds: 1_600_000_000, nanoseconds: 5 },
        linkName: Buffer.from(type.endsWith('link') ? 'file' : ''),
        ...(type === 'char' || type === 'block' ? { devMajor: 259, devMinor: 70_000 } : {}),
      }),
    ),
    endOfArchive,
  ]);
  const listed = execFileSync('tar', ['-tvf', '-', '--numeric-owner', '--full-time'], {
    input: archive,
    encoding: 'utf8',
    env: { TZ: 'UTC' },
  });
  const lines = listed
    .trim()
    .split('\n')
    .map((line) => line.replace(/\s+/g, ' '));
  t.deepEqual(lines, [
    '-rw-r----- 3000000/0 0 2020-09-13 12:26:40.000000005 file',
    'drw-r----- 3000000/0 0 2020-09-13 12:26:40.000000005 directory',
    'lrw-r----- 3000000/0 0 2020-09-13 12:26:40.000000005 symlink -> file',
    'hrw-r----- 3000000/0 0 2020-09-13 12:26:40.000000005 hardlink link to file',
    'crw-r----- 3000000/0 259,70000 2020-09-13 12:26:40.000000005 char',
    'brw-r----- 3000000/0 259,70000 2020-09-13 12:26:40.000000005 block',
    'prw-r----- 3000000/0 0 2020-09-13 12:26:40.000000005 fifo',
  ]);
});

test('a record counts its own length, at every step to one digit more', (t) => {
  for (let length = 0; length < 1200; length++) {
    const record = formatRecord('k', Buffer.alloc(length, 'v')).toString();
    t.is(record.length, Number(record.split(' ', 1)[0]), `${length}`);
  }
});

test('times are read back as they were written', (t) => {
  for (const time of [
    { seconds: 0, nanoseconds: 1 },
    { seconds: -1, nanoseconds: 999_999_999 },
    { seconds: -1, nanoseconds: 0 },
    { seconds: 1, nanoseconds: 100_000_000 },
  ]) {
    t.deepEqual(parseTime(formatTime(time)), time);
  }
});
