import test from 'ava';
import { Failure } from 'troupe/plugin';
import { validateIdentifier } from './identifier.ts';
import { quote } from './quote.ts';

for (const good of ['a', 'web', 'a.b', 'a_b-c.d', '0', 'A'.repeat(76)])
  test(`identifier ${good}`, (t) => {
    t.notThrows(() => validateIdentifier(good));
  });

for (const bad of ['a..b', '-a', 'a-', 'a/b', 'a\0b', '../../x', 'ä', 'a b', 'a\n', '.'])
  test(`not an identifier: ${JSON.stringify(bad)}`, (t) => {
    const failure = t.throws(() => validateIdentifier(bad), { instanceOf: Failure });
    t.is(failure.code, 'InvalidArgument');
    t.is(
      failure.message,
      `identifier ${quote(bad)} must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument`,
    );
  });

test('empty and too long identifiers say so', (t) => {
  t.is(t.throws(() => validateIdentifier('')).message, 'identifier must not be empty: invalid argument');
  t.is(
    t.throws(() => validateIdentifier('a'.repeat(77))).message,
    `identifier "${'a'.repeat(77)}" greater than maximum length (76 characters): invalid argument`,
  );
  t.true(t.throws(() => validateIdentifier('a'.repeat(1_000_000))).message.length < 400);
});

test('quotes as Go does', (t) => {
  t.is(quote('a"b\\c\n\t\0\x7f'), '"a\\"b\\\\c\\n\\t\\x00\\x7f"');
  t.is(quote('世界 é'), '"世界 é"');
  t.is(quote('\u00a0\u2028\u{e0001}'), '"\\u00a0\\u2028\\U000e0001"');
  t.is(quote('\ud800'), '"\ufffd"');
});
