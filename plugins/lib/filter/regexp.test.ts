import test from 'ava';
import { compileRegexp } from './regexp.ts';

const cases: [expression: string, matches: string[], not: string[]][] = [
  ['abc', ['abc', 'xabcx'], ['ab', 'acb']],
  ['^abc$', ['abc'], ['abcd', 'xabc', 'abc\n']],
  ['a.c', ['abc', 'a世c'], ['ac', 'a\nc']],
  ['(?s)a.c', ['a\nc'], ['ac']],
  ['a*b+c?$', ['b', 'aab', 'bbc'], ['a', 'cb c a']],
  ['^(?:ab|cd)+$', ['abcd', 'ab'], ['abc', '']],
  ['^a{2,3}$', ['aa', 'aaa'], ['a', 'aaaa']],
  ['^a{2}$', ['aa'], ['a', 'aaa']],
  ['^a{2,}$', ['aa', 'aaaaa'], ['a']],
  ['a{,2}', ['a{,2}'], ['aa']],
  ['x{', ['x{'], ['x']],
  ['^[a-c]+$', ['abc'], ['d', '']],
  ['^[^a-c]$', ['d', '世'], ['a']],
  ['^[]a]+$', [']a'], ['[']],
  ['^[a\\]-]+$', ['a]-'], ['b']],
  ['^[\\d\\-x]+$', ['1-x'], ['y']],
  ['^[[:^alpha:]]+$', ['12 '], ['a']],
  ['^[\\D]$', ['x'], ['1']],
  ['^\\d\\D\\w\\W\\s\\S$', ['1a_ \tx'], ['aaaaaa', '1a_ \vx']],
  ['^\\pL\\p{Greek}\\PN$', ['éαa'], ['1αa', 'éa1']],
  ['(?i)straße', ['STRAßE'], ['strasse']],
  ['(?i)^[a-z]+$', ['AbC'], ['A1']],
  ['(?i:a)b', ['Ab', 'ab'], ['AB']],
  ['(?i)a(?-i)b', ['Ab'], ['AB']],
  ['a(?i)b|c', ['aB', 'C'], ['AB']],
  ['\\bfoo\\b', ['a foo b', 'foo'], ['afoo', 'food']],
  ['\\Boo', ['foo'], ['oo']],
  ['(?m)^b$', ['a\nb\nc'], ['ab']],
  ['\\Ab\\z', ['b'], ['a\nb']],
  ['(?P<name>a)(?<other>b)', ['ab'], ['ac']],
  ['\\Qa.b\\E+', ['a.bb', 'a.b'], ['axb']],
  ['\\x41\\x{1F600}\\101\\012', ['A😀A\n'], ['A']],
  ['a??b*?', ['', 'b'], []],
  ['a||b', [''], []],
  ['()', [''], []],
  ['^(a|b)*abb$', ['abb', 'babaabb'], ['ab', 'abba']],
  ['^\\.\\*$', ['.*'], ['a']],
];

for (const [expression, matches, not] of cases)
  test(`expression ${expression}`, (t) => {
    const found = compileRegexp(expression);
    for (const text of matches) t.true(found(text), JSON.stringify(text));
    for (const text of not) t.false(found(text), JSON.stringify(text));
  });

for (const bad of [
  '(',
  ')',
  'a)',
  '[',
  '[a',
  '[z-a]',
  'a**',
  '*a',
  'a{1001}',
  'a{2,1}',
  '\\1',
  '(?=a)',
  '(?<=a)',
  '(?!a)',
  '\\',
  '\\p{ZZ}',
  '\\p{Bogus}',
  '\\C',
  '(?',
  '(?z)',
  '[[:bogus:]]',
  '\\x{110000}',
  '\\q',
  'a{2}{3}',
])
  test(`no expression: ${bad}`, (t) => {
    t.like(
      t.throws(() => compileRegexp(bad)),
      { code: 'InvalidArgument' },
    );
  });

test('what backtracks for ever elsewhere ends here', (t) => {
  const text = `${'a'.repeat(100_000)}!`;
  for (const expression of ['^(a+)+$', '^(a|aa)+$', '^(a*)*$', '^(.*a){20}$', '(x+x+)+y'])
    t.false(compileRegexp(expression)(text), expression);
});

test('expressions that grow without bound are refused', (t) => {
  for (const expression of [
    '((a{100}){100}){100}',
    '(((()){1000}){1000}){1000}',
    '('.repeat(10_000),
    `${'(a+'.repeat(30)}${')+'.repeat(30)}`,
  ])
    t.throws(() => compileRegexp(expression), undefined, expression.slice(0, 40));
});

test('more states than are kept do not change answers', (t) => {
  const found = compileRegexp('^(a|b)*a(a|b){11}$');
  const texts = Array.from({ length: 300 }, (_, index) =>
    ((index * 2_654_435_761) >>> 0).toString(2).replaceAll('0', 'a').replaceAll('1', 'b'),
  );
  for (const text of texts) t.is(found(text), text.at(-12) === 'a');
});
