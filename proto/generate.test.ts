import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { buf, descriptors, scratch } from './descriptors.ts';
import { generate } from './generate.ts';
import { lost, numbers } from './numbers.ts';

const here = import.meta.dirname;
const tree = (directory: string) =>
  Object.fromEntries(
    globSync('**/*.ts', { cwd: directory }).map((path) => [path, readFileSync(join(directory, path), 'utf8')]),
  );

test('the committed code is what the contracts generate', (t) => {
  const committed = tree(join(here, 'gen'));
  const fresh = scratch((directory) => {
    generate(descriptors(), join(directory, 'gen'));
    return tree(join(directory, 'gen'));
  });
  t.deepEqual(Object.keys(fresh).sort(), Object.keys(committed).sort());
  const stale = Object.keys(fresh).filter((path) => fresh[path] !== committed[path]);
  t.deepEqual(stale, [], 'npm run gen');
});

test('numbers, names and types on the wire are those written down', (t) => {
  const written = readFileSync(join(here, 'numbers.txt'), 'utf8');
  const now = numbers(descriptors());
  t.deepEqual({ gone: lost(written, now), added: lost(now, written) }, { gone: [], added: [] });
});

test('a message that contains itself is refused', (t) => {
  const files = descriptors();
  const lease = files.flatMap((file) => file.messages).find((message) => message.name === 'Lease')!;
  const inside = Object.assign(Object.create(lease), { fields: [] });
  Object.assign(inside, { fields: [Object.assign(Object.create(lease.fields[0]!), { message: inside })] });
  const file = Object.assign(Object.create(files[0]!), { messages: [inside] });
  t.throws(() => generate([file], join(here, 'never')), { message: /Lease contains itself/ });
});

test('contracts are formatted, lie where their packages say, and every rpc is explained', (t) => {
  t.notThrows(() => buf('lint', '.'));
  t.notThrows(() => buf('format', '.', '--diff', '--exit-code'));
});
