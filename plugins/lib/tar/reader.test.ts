import test from 'ava';
import { archive, base256, entry, header, pax } from './craft.ts';
import { names, read } from './told.ts';

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
