import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, base256, entry, header, pax, paxBody } from './craft.ts';
import type { TarHeader } from './format.ts';
import { formatRecord } from './pax.ts';
import { TarReader, type TarLimits } from './reader.ts';

interface Read extends TarHeader {
  readonly content: Buffer;
}

function read(bytes: Buffer, chunk = bytes.length || 1, limits: Partial<TarLimits> = {}): Read[] {
  const entries: Read[] = [];
  let current: TarHeader | undefined;
  let content = Buffer.alloc(0);
  const reader = new TarReader(
    {
      entry(header) {
        current = header;
        content = Buffer.alloc(header.size);
      },
      data(part, position) {
        Buffer.from(part).copy(content, position);
      },
      end() {
        entries.push({ ...current!, content });
      },
    },
    'layer x',
    limits,
  );
  for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
  reader.finish();
  return entries;
}

const names = (bytes: Buffer): string[] => read(bytes).map(({ name }) => name.toString());
const long = `${'d/'.repeat(90)}file`;

test('a plain file, in every chunking', (t) => {
  const bytes = archive(entry({ name: 'a/b', body: 'hello', mode: 0o4755, uid: 7, gid: 8 }), entry({ name: 'c' }));
  for (const chunk of [1, 2, 511, 512, 513, 1000, bytes.length]) {
    const [first, second] = read(bytes, chunk);
    t.is(first!.type, 'file');
    t.is(first!.name.toString(), 'a/b');
    t.is(first!.content.toString(), 'hello');
    t.is(first!.mode, 0o4755);
    t.deepEqual([first!.uid, first!.gid], [7, 8]);
    t.deepEqual(first!.mtime, { seconds: 1_600_000_000, nanoseconds: 0 });
    t.is(second!.name.toString(), 'c');
    t.is(second!.offset, 1024);
  }
});

test('types by flag; bodies only where there are any', (t) => {
  const flags = ['0', '\0', '7', '1', '2', '3', '4', '5', '6', 'Q'];
  // Size says 512, yet for those without a body the next header follows at once.
  const parts = flags.map((type) => {
    const bodiless = ['1', '2', '3', '4', '5', '6'].includes(type);
    return bodiless
      ? header({ name: type, type, size: 512 })
      : entry({ name: `f${type}`, type, body: Buffer.alloc(512, 1) });
  });
  const entries = read(archive(...parts));
  t.deepEqual(
    entries.map(({ type, size }) => [type, size]),
    [
      ['file', 512],
      ['file', 512],
      ['file', 512],
      ['hardlink', 0],
      ['symlink', 0],
      ['char', 0],
      ['block', 0],
      ['directory', 0],
      ['fifo', 0],
      ['other', 512],
    ],
  );
});

test('v7: a name that ends in a slash is a directory', (t) => {
  const [directory, file] = read(
    archive(
      header({ name: 'd/', type: '\0', magic: '\0'.repeat(8) }),
      entry({ name: 'f', type: '\0', magic: '\0'.repeat(8), body: 'x' }),
    ),
  );
  t.is(directory!.type, 'directory');
  t.is(file!.type, 'file');
});

test('ustar prefix, star prefix and times, GNU times, and the prefix of old Go', (t) => {
  t.deepEqual(names(archive(entry({ name: 'n', patch: { 345: 'some/prefix' } }))), ['some/prefix/n']);
  const star = entry({ name: 'n', patch: { 345: 'p', 476: '00000000144 ', 488: '00000000145 ', 508: 'tar\0' } });
  t.deepEqual(
    read(archive(star)).map(({ name, atime, ctime }) => [name.toString(), atime!.seconds, ctime!.seconds]),
    [['p/n', 100, 101]],
  );
  const gnu = entry({ name: 'n', magic: 'ustar  \0', patch: { 345: '00000000144\0', 357: '00000000145\0' } });
  t.deepEqual(
    read(archive(gnu)).map(({ name, atime, ctime }) => [name.toString(), atime!.seconds, ctime!.seconds]),
    [['n', 100, 101]],
  );
  t.deepEqual(names(archive(entry({ name: 'n', magic: 'ustar  \0', patch: { 345: 'a/long/prefix' } }))), [
    'a/long/prefix/n',
  ]);
});

test('magic decides the dialect, not whether it is read', (t) => {
  for (const magic of ['ustar\x0000', 'ustar  \0', '\0\0\0\0\0\0\0\0', 'garbage!', 'ustar\0xx']) {
    t.deepEqual(names(archive(entry({ name: 'n', magic }))), ['n']);
  }
});

test('GNU long names and link targets', (t) => {
  const [file] = read(
    archive(
      entry({ name: '././@LongLink', type: 'K', body: `${long}.target\0`, magic: 'ustar  \0' }),
      entry({ name: '././@LongLink', type: 'L', body: `${long}\0`, magic: 'ustar  \0' }),
      header({ name: 'short', type: '2', link: 'x', magic: 'ustar  \0' }),
    ),
  );
  t.is(file!.name.toString(), long);
  t.is(file!.linkName.toString(), `${long}.target`);
});

test('pax records lie over the block; the GNU long name over them', (t) => {
  const key = (name: string): string => Buffer.from(name).toString('latin1');
  const records = {
    path: long,
    linkpath: 'some where',
    uid: '3000000',
    gid: '3000001',
    uname: 'Zoë',
    gname: 'crew',
    mtime: '1234567890.123456789999',
    atime: '-1.25',
    ctime: '7',
    size: '5',
    [key('SCHILY.xattr.user.é')]: Buffer.from([0, 1, 2, 10, 61, 255]),
    'SCHILY.xattr.user.empty': '',
    'LIBARCHIVE.xattr.user.a%2Fb': 'AAEC/w==',
    comment: 'ignored',
  };
  const [file] = read(archive(pax(records), entry({ name: 'n', body: 'hello', size: 0o7777777777 })));
  t.is(file!.name.toString(), long);
  t.is(file!.linkName.toString(), 'some where');
  t.deepEqual([file!.uid, file!.gid, file!.size], [3_000_000, 3_000_001, 5]);
  t.is(file!.userName.toString(), 'Zoë');
  t.deepEqual(file!.mtime, { seconds: 1_234_567_890, nanoseconds: 123_456_789 });
  t.deepEqual(file!.atime, { seconds: -2, nanoseconds: 750_000_000 });
  t.deepEqual(file!.ctime, { seconds: 7, nanoseconds: 0 });
  t.deepEqual(file!.xattrs.get(key('user.é')), Buffer.from([0, 1, 2, 10, 61, 255]));
  t.deepEqual(file!.xattrs.get('user.empty'), Buffer.alloc(0));
  t.deepEqual(file!.xattrs.get('user.a/b'), Buffer.from([0, 1, 2, 255]));
  const both = archive(
    pax({ path: 'from-pax' }),
    entry({ name: 'L', type: 'L', body: 'from-gnu\0' }),
    entry({ name: 'n' }),
  );
  t.deepEqual(names(both), ['from-gnu']);
});

test('an empty pax value leaves the field of the block', (t) => {
  t.deepEqual(names(archive(pax({ path: '', uid: '' }), entry({ name: 'n', uid: 9 }))), ['n']);
});

test('a pax size does not reach a GNU long name between it and its entry', (t) => {
  const bytes = archive(
    pax({ size: '1024' }),
    entry({ name: 'L', type: 'L', body: 'real\0' }),
    entry({ name: 'n', size: 0, body: Buffer.alloc(1024, 65) }),
    entry({ name: 'after' }),
  );
  t.deepEqual(
    read(bytes).map(({ name, size }) => [name.toString(), size]),
    [
      ['real', 1024],
      ['after', 0],
    ],
  );
});

test('a header inside a body is a body (TARmageddon)', (t) => {
  const inner = archive(entry({ name: 'hidden', body: 'boo' }));
  const bytes = archive(
    pax({ size: String(inner.length) }),
    entry({ name: 'outer.tar', size: 0, body: inner }),
    entry({ name: 'after' }),
  );
  t.deepEqual(names(bytes), ['outer.tar', 'after']);
});

test('global pax headers are told and applied to nothing', (t) => {
  const entries = read(archive(pax({ path: 'evil', comment: 'x' }, 'g'), pax({ uid: '5' }, 'g'), entry({ name: 'n' })));
  t.deepEqual(
    entries.map(({ type }) => type),
    ['global', 'global', 'file'],
  );
  t.is(entries[2]!.name.toString(), 'n');
  t.is(entries[2]!.uid, 0);
});

test('names are bytes', (t) => {
  const raw = [
    Buffer.from([0xff, 0xfe, 0x80]),
    Buffer.from('a\nb\x1b[31m'),
    Buffer.from('\u202egnp.exe'),
    Buffer.from('n\u0303'),
    Buffer.from('ñ'),
  ];
  t.deepEqual(
    read(archive(...raw.map((name) => entry({ name })))).map(({ name }) => name),
    raw,
  );
});

test('numbers: octal with spaces and NULs, base-256, negative times', (t) => {
  const [file] = read(
    archive(
      entry({
        mode: ' 644 \0\0',
        uid: base256(3_000_000n, 8),
        gid: '\0\0\0\0\0\0\0\0',
        mtime: base256(-5n, 12),
        body: 'x',
        size: base256(1n, 12),
      }),
    ),
  );
  t.is(file!.mode, 0o644);
  t.deepEqual([file!.uid, file!.gid, file!.size], [3_000_000, 0, 1]);
  t.deepEqual(file!.mtime, { seconds: -5, nanoseconds: 0 });
});

test('the signed checksum of old writers is accepted', (t) => {
  const block = entry({ name: Buffer.from([0xe9, 0xe9]) });
  const sum = block
    .subarray(0, 512)
    .reduce((all, byte, i) => all + (i >= 148 && i < 156 ? 32 : byte > 127 ? byte - 256 : byte), 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  t.is(read(archive(block)).length, 1);
});

test('the end: two zero blocks, one and the end of the stream, or just the end; padding may be missing; what is behind is ignored', (t) => {
  const file = entry({ name: 'n', body: 'hello' });
  const hidden = archive(entry({ name: 'hidden' }));
  for (const bytes of [
    archive(file),
    file,
    Buffer.concat([file, Buffer.alloc(512)]),
    file.subarray(0, 512 + 5),
    Buffer.concat([archive(file), hidden]),
  ]) {
    t.deepEqual(names(bytes), ['n']);
  }
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(512), Buffer.alloc(1024), Buffer.alloc(10_240)])
    t.deepEqual(names(bytes), []);
});

// Sparse files: 1 at 0, 2 at 1000, the end at 2000.
const sparseBody = Buffer.concat([Buffer.alloc(10, 'a'), Buffer.alloc(20, 'b')]);
const sparseContent = Buffer.alloc(2000);
sparseBody.copy(sparseContent, 0, 0, 10);
sparseBody.copy(sparseContent, 1000, 10);
const octal12 = (value: number): string => `${value.toString(8).padStart(11, '0')}\0`;
const oldMap = (pairs: [number, number][]): string =>
  pairs.map(([offset, length]) => octal12(offset) + octal12(length)).join('');
const map10 = Buffer.alloc(512);
map10.write('3\n0\n10\n1000\n20\n2000\n0\n');

const record = (key: string, value: string): string => formatRecord(key, Buffer.from(value)).toString('latin1');

const sparse: Record<string, Buffer> = {
  'old GNU': entry({
    name: 's',
    type: 'S',
    magic: 'ustar  \0',
    body: sparseBody,
    patch: {
      386: oldMap([
        [0, 10],
        [1000, 20],
        [2000, 0],
      ]),
      483: octal12(2000),
    },
  }),
  '0.0': Buffer.concat([
    paxBody(
      record('GNU.sparse.size', '2000') +
        record('GNU.sparse.numblocks', '2') +
        record('GNU.sparse.offset', '0') +
        record('GNU.sparse.numbytes', '10') +
        record('GNU.sparse.offset', '1000') +
        record('GNU.sparse.numbytes', '20'),
    ),
    entry({ name: 's', body: sparseBody }),
  ]),
  '0.1': Buffer.concat([
    pax({
      'GNU.sparse.size': '2000',
      'GNU.sparse.numblocks': '2',
      'GNU.sparse.map': '0,10,1000,20',
      'GNU.sparse.name': 's',
    }),
    entry({ name: 'GNUSparseFile.1/s', body: sparseBody }),
  ]),
  '1.0': Buffer.concat([
    pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '2000', 'GNU.sparse.name': 's' }),
    entry({ name: 'GNUSparseFile.1/s', body: Buffer.concat([map10, sparseBody]) }),
  ]),
};
for (const [version, bytes] of Object.entries(sparse)) {
  test(`sparse ${version}`, (t) => {
    for (const chunk of [1, 300, 100_000]) {
      const [file, after] = read(archive(bytes, entry({ name: 'after' })), chunk);
      t.is(file!.name.toString(), 's');
      t.is(file!.size, 2000);
      t.true(file!.content.equals(sparseContent));
      t.is(file!.sparse!.length, version === '1.0' || version === 'old GNU' ? 3 : 2);
      t.is(after!.name.toString(), 'after');
    }
  });
}

test('an old GNU sparse map goes on in blocks of its own', (t) => {
  const pairs = Array.from({ length: 4 + 21 + 3 }, (_, i): [number, number] => [i * 100, 1]);
  const more = (from: number, to: number, flag: string): Buffer => {
    const block = Buffer.alloc(512);
    block.write(oldMap(pairs.slice(from, to)), 0, 'latin1');
    block.write(flag, 504, 'latin1');
    return block;
  };
  const head = header({
    name: 's',
    type: 'S',
    magic: 'ustar  \0',
    size: pairs.length,
    patch: { 386: oldMap(pairs.slice(0, 4)), 482: '\x01', 483: octal12(5000) },
  });
  const body = Buffer.alloc(512);
  body.fill('x', 0, pairs.length);
  const [file, after] = read(archive(head, more(4, 25, '\x01'), more(25, 28, '\0'), body, entry({ name: 'after' })));
  t.is(file!.content.filter((byte) => byte === 0x78).length, pairs.length);
  t.is(file!.content[2700], 0x78);
  t.is(after!.name.toString(), 'after');
});

const bigPax = header({ type: 'x', size: 1 << 30 });
const refused: Record<string, [Buffer, RegExp]> = {
  'a wrong checksum': [archive(entry({ checksum: 1 })), /header checksum is wrong at offset 0/],
  'a header of 0xff': [Buffer.alloc(512, 0xff), /checksum/],
  'octal garbage in mode': [archive(entry({ mode: '0000x44' })), /mode is not a number/],
  'octal garbage in uid': [archive(entry({ uid: '99' })), /uid is not a number/],
  'a negative size, base-256': [archive(entry({ size: base256(-1n, 12) })), /size is negative/],
  'a negative size, octal': [archive(entry({ size: '-1' })), /size is not a number/],
  'a size of 2^63': [archive(entry({ size: base256(1n << 63n, 12) })), /size is not a number/],
  'a size of 2^62': [archive(entry({ size: base256(1n << 62n, 12) })), /size is out of range/],
  'a uid of 2^60': [archive(pax({ uid: '1152921504606846976' }), entry({})), /is not a number/],
  'a pax uid abc': [archive(pax({ uid: 'abc' }), entry({})), /"abc" is not a number/],
  'a pax size that is negative': [archive(pax({ size: '-5' }), entry({})), /size is negative/],
  'a pax time nan': [archive(pax({ mtime: 'nan' }), entry({})), /"nan" is not a time/],
  'a pax time of 1000 digits': [archive(pax({ mtime: '1'.repeat(1000) }), entry({})), /is not a time/],
  'a pax record too short': [archive(paxBody('3 a=b\n'), entry({})), /extended header/],
  'a pax record too long': [archive(paxBody('999 path=x\n'), entry({})), /wrong length/],
  'a pax record without =': [archive(paxBody('8 pathx\n'), entry({})), /without "="/],
  'a pax record without newline': [archive(paxBody('9 path=xy'), entry({})), /without a newline/],
  'a pax record without a key': [archive(paxBody('6 =ab\n'), entry({})), /without a key/],
  'a pax body without a length': [archive(paxBody('no length here'), entry({})), /without a length|wrong length/],
  'a pax path with a NUL': [archive(pax({ path: 'a\0b' }), entry({})), /path with a NUL/],
  'a pax key with a NUL': [archive(pax({ 'SCHILY.xattr.user.a\0b': 'x' }), entry({})), /key with a NUL/],
  'an xattr that is not base64': [archive(pax({ 'LIBARCHIVE.xattr.user.a': '!' }), entry({})), /not base64/],
  'a pax body of 1 GiB': [bigPax, /header body of 1073741824 bytes is too long/],
  'a GNU long name of 1 GiB': [header({ type: 'L', size: 1 << 30 }), /too long/],
  'a GNU long name with a NUL inside': [archive(entry({ type: 'L', body: 'a\0b' }), entry({})), /NUL inside/],
  'a name of 4097 bytes': [archive(pax({ path: 'a'.repeat(4097) }), entry({})), /name of 4097 bytes is too long/],
  'a link target of 4097 bytes': [
    archive(pax({ linkpath: 'a'.repeat(4097) }), entry({ type: '2' })),
    /link target of 4097 bytes/,
  ],
  'L without an entry, then the end': [
    archive(entry({ type: 'L', body: 'name\0' })),
    /extension header without an entry/,
  ],
  'x without an entry, cut off': [paxBody('').subarray(0, 512), /extension header without an entry/],
  'extension headers without end': [
    Buffer.concat(Array.from({ length: 100 }, () => paxBody(''))),
    /too many extension headers/,
  ],
  'a header cut off': [entry({}).subarray(0, 100), /unexpected end of the archive at offset 100/],
  'a body cut off': [entry({ body: 'x'.repeat(1000) }).subarray(0, 700), /unexpected end of the archive at offset 700/],
  'a pax body cut off': [pax({ path: 'x'.repeat(600) }).subarray(0, 800), /unexpected end/],
  'a header behind one zero block': [Buffer.concat([Buffer.alloc(512), entry({})]), /behind a zero block/],
  'old sparse that is not GNU': [archive(entry({ type: 'S' })), /not in GNU format/],
  'old sparse that overlaps': [
    archive(
      entry({
        type: 'S',
        magic: 'ustar  \0',
        body: 'x'.repeat(20),
        patch: {
          386: oldMap([
            [0, 10],
            [5, 10],
          ]),
          483: octal12(2000),
        },
      }),
    ),
    /overlaps/,
  ],
  'old sparse beyond its size': [
    archive(
      entry({
        type: 'S',
        magic: 'ustar  \0',
        body: 'x'.repeat(10),
        patch: { 386: oldMap([[0, 10]]), 483: octal12(5) },
      }),
    ),
    /beyond the end/,
  ],
  'old sparse with another amount of data': [
    archive(
      entry({
        type: 'S',
        magic: 'ustar  \0',
        body: 'x'.repeat(9),
        patch: { 386: oldMap([[0, 10]]), 483: octal12(50) },
      }),
    ),
    /names 10 bytes, the entry has 9/,
  ],
  'old sparse map without end': [
    Buffer.concat([
      header({ type: 'S', magic: 'ustar  \0', patch: { 482: '\x01', 483: octal12(5) } }),
      ...Array.from({ length: 3000 }, () => Buffer.concat([Buffer.alloc(504), Buffer.from('\x01'), Buffer.alloc(7)])),
    ]),
    /sparse map is too long/,
  ],
  'sparse 0.1 of wrong length': [
    archive(
      pax({ 'GNU.sparse.numblocks': '2', 'GNU.sparse.map': '0,10', 'GNU.sparse.size': '20' }),
      entry({ body: 'x'.repeat(10) }),
    ),
    /sparse map of wrong length/,
  ],
  'sparse 0.1 with a huge count': [
    archive(
      pax({ 'GNU.sparse.numblocks': '1000000000', 'GNU.sparse.map': '0,10', 'GNU.sparse.size': '20' }),
      entry({}),
    ),
    /wrong length/,
  ],
  'sparse 0.0 out of order': [archive(pax({ 'GNU.sparse.numbytes': '2' }), entry({})), /out of order/],
  'sparse 1.0 with 10^9 fragments': [
    archive(
      pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '20' }),
      entry({ body: Buffer.concat([Buffer.from('1000000000\n'), Buffer.alloc(2000)]) }),
    ),
    /too long/,
  ],
  'sparse 1.0 with a map cut off': [
    archive(
      pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '20' }),
      entry({ body: Buffer.from('5\n') }),
    ),
    /cut off/,
  ],
  'sparse 1.0 of no file': [
    archive(pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), entry({ type: '5' })),
    /not a file/,
  ],
  'sparse 7.3': [
    archive(pax({ 'GNU.sparse.major': '7', 'GNU.sparse.minor': '3' }), entry({})),
    /sparse format 7.3 is unknown/,
  ],
};
for (const [name, [bytes, message]] of Object.entries(refused)) {
  test(`refused: ${name}`, (t) => {
    for (const chunk of [bytes.length, 777]) {
      const failure = t.throws(() => read(bytes, chunk), { instanceOf: Failure, message }) as Failure;
      t.is(failure.code, 'InvalidArgument');
      t.regex(failure.message, /^layer x: .* at offset \d+: invalid argument$/);
    }
  });
}

test('the budget of entries', (t) => {
  const bytes = archive(...Array.from({ length: 11 }, () => entry({})));
  t.is(read(bytes, 512, { entries: 11 }).length, 11);
  const failure = t.throws(() => read(bytes, 512, { entries: 10 }), { instanceOf: Failure }) as Failure;
  t.is(failure.code, 'ResourceExhausted');
});

/** All that it tells of an archive, in pieces of `chunk` bytes. Sizes in damaged headers may be huge: bytes are counted, and room is made for none. */
function told(bytes: Buffer, chunk: number): string[] {
  const lines: string[] = [];
  let count = 0;
  const reader = new TarReader(
    {
      entry: ({ name, type, size }) => lines.push(`${name.toString('latin1')} ${type} ${size}`),
      data(part) {
        count += part.length;
      },
      end() {
        lines.push(`${count} bytes`);
        count = 0;
      },
    },
    'layer x',
  );
  try {
    for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
    reader.finish();
    lines.push('the end');
  } catch (error) {
    lines.push(error instanceof Failure ? `${error.code} ${error.message}` : `thrown: ${(error as Error).stack}`);
  }
  return lines;
}

test('random damage is read or refused with a Failure, the same in whatever pieces it comes', (t) => {
  const whole = archive(
    ...Object.values(sparse),
    pax({ path: long, mtime: '1.5' }),
    entry({ body: 'x'.repeat(3000) }),
    entry({ type: 'L', body: `${long}\0` }),
    entry({}),
  );
  let seed = 12345;
  const random = (limit: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return seed % limit;
  };
  const ends = { read: 0, refused: 0 };
  for (let round = 0; round < 3000; round++) {
    const bytes = Buffer.from(whole);
    for (let hits = 1 + random(4); hits > 0; hits--) bytes[random(bytes.length)] = random(256);
    // A wrong checksum would hide nearly all other damage.
    for (let at = 0; at < bytes.length; at += 512) {
      const block = bytes.subarray(at, at + 512);
      if (block.toString('latin1', 257, 262) !== 'ustar') continue;
      block.write('        ', 148, 'latin1');
      block.write(
        `${block
          .reduce((sum, byte) => sum + byte, 0)
          .toString(8)
          .padStart(6, '0')}\0 `,
        148,
        'latin1',
      );
    }
    const pieces = told(bytes, 700);
    t.deepEqual(pieces, told(bytes, bytes.length), `round ${round}`);
    const last = pieces.at(-1)!;
    t.regex(last, /^(the end$|InvalidArgument layer x: .*: invalid argument$)/, `round ${round}`);
    ends[last === 'the end' ? 'read' : 'refused'] += 1;
  }
  t.true(ends.read > 100 && ends.refused > 100, JSON.stringify(ends));
});
