/** Sparse files, in all their formats. */
import test from 'ava';
import { archive, entry, header, pax } from './craft.ts';
import { read, refuses } from './told.ts';
import { octal12, oldMap, sparse, sparseContent } from './craft-sparse.ts';

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

const refused: Record<string, [Buffer, RegExp]> = {
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
  test(`refused: ${name}`, (t) => refuses(t, bytes, message));
}
