import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { useScratch } from '../../test/helpers/scratch.ts';
import { messageWithPlace } from './place.ts';

const cases: Record<string, [text: string, place: string, message: RegExp]> = {
  'code that does not parse': ['export const a = 1;\nexport const b = (;\n', ':2: ', /Expression expected/],
  'TypeScript that is more than types': ['export {};\nenum A { B }\n', ':2: ', /enum is not supported/],
  'an import of what is not exported': ["export {};\nimport { nope } from 'node:fs';\n", ':2: ', /named 'nope'/],
  'a throw while it is imported': ['export {};\n\nthrow new Error("not today");\n', ':3: ', /not today/],
  'an import of a file that is not there': [
    "import './nowhere.ts';\nexport {};\n",
    '',
    /Cannot find module '.*nowhere\.ts' imported from .*\.ts/,
  ],
};

for (const [title, [text, place, message]] of Object.entries(cases)) {
  test(title, async (t) => {
    const dir = useScratch(t);
    const file = join(dir, 'index.ts');
    writeFileSync(file, text);
    const error = await import(pathToFileURL(file).href).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    const told = messageWithPlace(error, dir);
    t.true(told.startsWith(place === '' ? 'Cannot find' : `${file}${place}`), told);
    t.regex(told, message);
  });
}

test('of a throw deep in the kernel the plugin line that led there; of what is no error its text', (t) => {
  const error = new Error('no such thing');
  error.stack =
    'Error: no such thing\n    at call (file:///house/kernel/sdk/host.ts:5:1)\n    at start (file:///p/a%20b/index.ts:12:3)\n    at x (file:///p/a%20b/index.ts:40:1)';
  t.is(messageWithPlace(error, '/p/a b'), '/p/a b/index.ts:12: no such thing');
  t.is(messageWithPlace(error, '/elsewhere'), 'no such thing');
  t.is(messageWithPlace('text', '/p'), 'text');
  t.is(messageWithPlace(undefined, '/p'), 'undefined');
});
