import test from 'ava';
import { isRange, satisfies } from './version.ts';

const table: [range: string, inside: string[], outside: string[]][] = [
  ['1', ['1.0.0', '1.9.9'], ['0.9.9', '2.0.0']],
  ['1.2', ['1.2.0', '1.2.9'], ['1.3.0', '1.1.9']],
  ['1.2.3', ['1.2.3'], ['1.2.4', '1.2.2']],
  ['^1.2', ['1.2.0', '1.9.0'], ['1.1.9', '2.0.0']],
  ['^0.2.1', ['0.2.1', '0.2.9'], ['0.3.0', '0.2.0']],
  ['~1.2.3', ['1.2.3', '1.2.9'], ['1.3.0', '1.2.2']],
  ['>=1.1 <3', ['1.1.0', '2.9.9'], ['1.0.9', '3.0.0']],
  ['>1.1', ['1.2.0'], ['1.1.5', '1.1.0']],
  ['<=1.1', ['1.1.9', '0.0.0'], ['1.2.0']],
  ['1 || 3', ['1.5.0', '3.0.0'], ['2.0.0', '4.0.0']],
  ['*', ['0.0.0', '99.0.0'], []],
];

for (const [range, inside, outside] of table) {
  test(range, (t) => {
    t.true(isRange(range));
    for (const version of inside) t.true(satisfies(version, range), version);
    for (const version of outside) t.false(satisfies(version, range), version);
  });
}

test('what is no range or no version', (t) => {
  for (const text of ['', 'one', '1.x', '1..2', '>=', '1 |3', '1.2.3.4', '1 ||']) t.false(isRange(text), text);
  t.false(satisfies('1.0', '1'));
  t.false(satisfies('v1.0.0', '*'));
});
