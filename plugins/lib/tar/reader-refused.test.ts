/** Archives that are no such thing: refused, with the place, or read the same in whatever pieces they come. */
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, base256, entry, header, pax, paxBody } from './craft.ts';
import { read, refuses, told } from './told.ts';
import { sparse } from './craft-sparse.ts';

const long = `${'d/'.repeat(90)}file`;

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
};
for (const [name, [bytes, message]] of Object.entries(refused)) {
  test(`refused: ${name}`, (t) => refuses(t, bytes, message));
}

test('the budget of entries', (t) => {
  const bytes = archive(...Array.from({ length: 11 }, () => entry({})));
  t.is(read(bytes, 512, { entries: 11 }).length, 11);
  const failure = t.throws(() => read(bytes, 512, { entries: 10 }), { instanceOf: Failure }) as Failure;
  t.is(failure.code, 'ResourceExhausted');
});

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
