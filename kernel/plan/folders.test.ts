import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { loadManifests } from './folders.ts';

test('a directory of plugins: lib and folders without a manifest are passed over, a bad one does not hide the others', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugins-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const name of ['b', 'a', 'lib', 'empty', 'bad']) mkdirSync(join(dir, name));
  writeFileSync(join(dir, 'a/plugin.toml'), 'api = 1\nid = "x.v1.a"\n');
  writeFileSync(join(dir, 'b/plugin.toml'), 'api = 1\nid = "x.v1.b"\n');
  writeFileSync(join(dir, 'lib/plugin.toml'), 'api = 1\nid = "x.v1.lib"\n');
  writeFileSync(join(dir, 'bad/plugin.toml'), 'api = 1\nid = 5\n');
  const { manifests, problems } = loadManifests(dir, join(dir, 'nowhere'));
  t.deepEqual(
    manifests.map((m) => m.id),
    ['x.v1.a', 'x.v1.b'],
  );
  t.is(problems.length, 2);
  t.is(problems[0]?.line, 2);
  t.deepEqual(
    loadManifests(join(dir, 'a')).manifests.map((m) => m.id),
    ['x.v1.a'],
    'the folder of one plugin is a plugin directory too',
  );
});
