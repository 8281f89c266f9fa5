/** What a reader may rely on: names that say something, files that end, sources that run as they are. */
import { basename } from 'node:path';
import test from 'ava';
import { isTest, sources } from './sources.ts';

const all = sources();
const code = all.filter((source) => !isTest(source.path));

test('no name that says nothing', (t) => {
  const vague = /^(utils?|commons?|helpers?|types|misc|shared)(\.|$)/;
  t.deepEqual(
    all
      .map((source) => source.path)
      .filter((path) => path.split('/').some((part) => vague.test(part)) && !path.startsWith('test/helpers/')),
    [],
  );
});

test('no file over 500 lines, and few over 350', (t) => {
  t.deepEqual(
    code.filter((source) => source.lines > 500).map((source) => `${source.path}: ${source.lines}`),
    [],
  );
  const long = code.filter((source) => source.lines > 350).map((source) => `${source.path}: ${source.lines}`);
  t.true(long.length <= code.length * 0.05, long.join('\n'));
});

test('services are thin', (t) => {
  t.deepEqual(
    code
      .filter((source) => basename(source.path) === 'service.ts' && source.lines > 200)
      .map((source) => `${source.path}: ${source.lines}`),
    [],
  );
});

test('nothing is left for later', (t) => {
  const later = /\b(TODO|FIXME|XXX)\b/;
  t.deepEqual(
    code.flatMap((source) =>
      source.text.split('\n').flatMap((line, index) => (later.test(line) ? [`${source.path}:${index + 1}`] : [])),
    ),
    [],
  );
});

test('a failure that a client can see is a Failure', (t) => {
  const bare = /throw new Error\(/;
  t.deepEqual(
    code
      .filter((source) => source.path.startsWith('plugins/') && basename(source.path) === 'service.ts')
      .filter((source) => bare.test(source.text))
      .map((source) => source.path),
    [],
  );
});
