import test from 'ava';
import { Failure } from 'troupe/plugin';
import { Digester, digestAlgorithm, digestHex, digestOf, isDigest, parseDigest } from './digest.ts';

const zeros = (length: number) => '0'.repeat(length);

for (const [algorithm, length] of [
  ['sha256', 64],
  ['sha384', 96],
  ['sha512', 128],
] as const) {
  test(`${algorithm} is accepted with its own length only`, (t) => {
    const digest = parseDigest(`${algorithm}:${zeros(length)}`);
    t.is(digestAlgorithm(digest), algorithm);
    t.is(digestHex(digest), zeros(length));
    for (const wrong of [length - 1, length + 1]) t.false(isDigest(`${algorithm}:${zeros(wrong)}`));
  });
}

const refused: readonly [string, string][] = [
  ['', 'invalid checksum digest format'],
  [':', 'invalid checksum digest format'],
  ['sha256:', 'invalid checksum digest format'],
  [`:${zeros(64)}`, 'invalid checksum digest format'],
  ['foo', 'invalid checksum digest format'],
  ['../../x', 'invalid checksum digest format'],
  [`sha256:${'A'.repeat(64)}`, 'invalid checksum digest format'],
  [`sha256:${zeros(63)}\n`, 'invalid checksum digest format'],
  [`sha256:${zeros(62)}/.`, 'invalid checksum digest format'],
  [`sha256:${zeros(63)}\0`, 'invalid checksum digest format'],
  ['sha256:abc', 'invalid checksum digest length'],
  [`sha512:${zeros(64)}`, 'invalid checksum digest length'],
  [`md5:${zeros(32)}`, 'unsupported digest algorithm'],
  [`SHA256:${zeros(64)}`, 'unsupported digest algorithm'],
  [`__proto__:${zeros(64)}`, 'invalid checksum digest format'],
  [`constructor:${zeros(64)}`, 'unsupported digest algorithm'],
  [`x/y:${zeros(64)}`, 'invalid checksum digest format'],
];
for (const [text, problem] of refused) {
  test(`refused: ${JSON.stringify(text)}`, (t) => {
    const thrown = t.throws(() => parseDigest(text));
    t.true(Failure.is(thrown, 'InvalidArgument'));
    t.is(thrown?.message, `${problem}: invalid argument`);
  });
}

test('a digester agrees with the whole, at every prefix', (t) => {
  const bytes = Buffer.from('hello world');
  const digester = new Digester();
  t.is(digester.digest(), digestOf(''));
  for (let i = 0; i < bytes.length; i += 1) {
    digester.update(bytes.subarray(i, i + 1));
    t.is(digester.digest(), digestOf(bytes.subarray(0, i + 1)));
  }
  t.is(digester.size, bytes.length);
  t.is(digester.digest() as string, 'sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9');
});
