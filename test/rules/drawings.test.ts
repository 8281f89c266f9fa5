/** Drawings that a program can check, it checks: a picture that has drifted misleads longer than none. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { arrows } from '../../kernel/supervisor/transitions.ts';
import { checkout } from './sources.ts';

const architecture = readFileSync(join(checkout, 'ARCHITECTURE.md'), 'utf8');

test('the picture of states is the table of transitions', (t) => {
  const drawn = Object.fromEntries(
    [...architecture.matchAll(/^(\w+) +→ (.+)$/gm)].map(([, from, to]) => [
      from,
      to!.split(' · ').map((state) => state.trim()),
    ]),
  );
  const table = Object.fromEntries(Object.entries(arrows).map(([from, to]) => [from, [...to]]));
  t.deepEqual(drawn, table);
});

test('every file that ARCHITECTURE.md names is there', (t) => {
  const named = [
    ...architecture.matchAll(/\b((?:kernel|plugins|proto|test|bench)\/[\w./-]*\w\.(?:ts|md|toml))\b/g),
  ].map((match) => match[1]!);
  t.true(named.length > 10);
  t.deepEqual(
    named.filter((path) => !existsSync(join(checkout, path)) && !path.includes('NOUN')),
    [],
  );
});
