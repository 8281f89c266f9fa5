/** Entries that no layer may have: each is refused, with the words for it. */

import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, base256, entry, header, pax } from '../tar/craft.ts';
import { file } from './crafted.ts';
import { scratch, unpack } from './scratch.ts';

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
