/** Samples are read to learn, and pasted: each is short, complete, and imports nothing that a folder elsewhere could not. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { checkout, sources } from './sources.ts';

const samples = join(checkout, 'plugins/samples');

test('a sample has sixty lines or fewer, its .proto aside', (t) => {
  const lines = readdirSync(samples).map((name) => {
    const files = readdirSync(join(samples, name)).filter((file) => !file.endsWith('.proto'));
    t.true(files.includes('plugin.toml') && files.includes('index.ts'), name);
    const count = files.reduce(
      (sum, file) => sum + readFileSync(join(samples, name, file), 'utf8').split('\n').length - 1,
      0,
    );
    return [name, count] as const;
  });
  t.is(lines.length, 3);
  t.deepEqual(
    lines.filter(([, count]) => count > 60),
    [],
  );
});

test('a sample imports what is there without node_modules', (t) => {
  const imports = sources()
    .filter(({ path }) => path.startsWith('plugins/samples/'))
    .flatMap((source) => source.imports.map(({ target }) => target));
  t.deepEqual(
    imports.filter((target) => !/^(node:|troupe\/|plugins\/samples\/)/.test(target)),
    [],
  );
});
