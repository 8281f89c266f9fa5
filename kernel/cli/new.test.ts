import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { useScratch } from '../../test/helpers/scratch.ts';
import { loadManifest } from '../plan/index.ts';
import { newPlugin, pluginTypes, scaffold } from './new.ts';
import { installDir } from './version.ts';

const launcher = join(installDir, 'kernel/trouped');
const tsc = join(installDir, 'node_modules/typescript/bin/tsc');

for (const type of pluginTypes) {
  test(`a new ${type}: a manifest that is right, types that fit, tests that pass`, (t) => {
    t.timeout(120_000);
    const dir = scaffold('my-first', type, useScratch(t, 'new'));
    const manifest = loadManifest(dir);
    t.is(manifest.name, 'my-first');
    for (const file of readdirSync(dir))
      t.notRegex(readFileSync(join(dir, file), 'utf8'), /\b(NAME|IDENTIFIER|CLASS)\b/, file);
    const output = execFileSync(launcher, ['plugins', 'test', dir], { encoding: 'utf8' });
    t.regex(output, /pass [1-9]\d*\n/);
    t.regex(output, /fail 0\n/);
    t.notThrows(() => execFileSync(process.execPath, [tsc, '--noEmit', '-p', join(dir, 'tsconfig.json')]));
  });
}

test('a test that fails is told by the exit code, and so is a folder without any', (t) => {
  const dir = scaffold('broken', 'verifier', useScratch(t, 'new'));
  writeFileSync(
    join(dir, 'index.ts'),
    readFileSync(join(dir, 'index.ts'), 'utf8').replace('size <= limit', 'size > limit'),
  );
  const { status } = t.throws(() => execFileSync(launcher, ['plugins', 'test', dir], { stdio: 'pipe' })) as Error & {
    status: number;
  };
  t.is(status, 1);
  t.throws(() => execFileSync(launcher, ['plugins', 'test', useScratch(t, 'new')], { stdio: 'pipe' }), {
    message: /holds no test/,
  });
});

test('what is no name, no type, or a folder that is in use is refused; nothing is overwritten', (t) => {
  const cwd = useScratch(t, 'new');
  const said: string[] = [];
  const streams = { out: (text: string) => void said.push(text), err: (text: string) => void said.push(text) };
  for (const name of ['Upper', '1st', 'a_b', 'a--b', '..', 'a-', `a${'b'.repeat(60)}`])
    t.is(newPlugin([name], streams, cwd), 1, name);
  t.is(newPlugin(['fine', 'snapshoter'], streams, cwd), 1);
  t.regex(
    said.at(-1)!,
    /^new: a plugin is one of service, snapshotter, verifier, consumer, not "snapshoter" \(did you mean "snapshotter"\?\)\n$/,
  );
  mkdirSync(join(cwd, 'used'));
  writeFileSync(join(cwd, 'used/file'), '');
  t.is(newPlugin(['used'], streams, cwd), 1);
  t.regex(said.at(-1)!, /^new: .*\/used is not empty: it holds file\n$/);
  t.is(newPlugin([], streams, cwd), 2);
  t.is(newPlugin(['a', 'service', 'more'], streams, cwd), 2);
  t.deepEqual(readdirSync(cwd), ['used']);
});
