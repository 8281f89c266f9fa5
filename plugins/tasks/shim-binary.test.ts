import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { makeRig } from './rig.ts';
import { resolveShimBinary, startInputOf } from './shim-binary.ts';

function script(path: string, text: string): string {
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}

test('a runtime’s last two parts name the binary, looked for in PATH and then beside the daemon', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'shim-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const [first, second, own] = ['a', 'b', 'own'].map((name) => join(directory, name)) as [string, string, string];
  for (const path of [first, second, own]) mkdirSync(path);
  const daemon = join(own, 'trouped');
  const inOwn = script(join(own, 'containerd-shim-runc-v2'), ':');
  t.is(resolveShimBinary('io.containerd.runc.v2', `${first}:${second}`, daemon), inOwn);
  const inSecond = script(join(second, 'containerd-shim-runc-v2'), ':');
  t.is(resolveShimBinary('io.containerd.runc.v2', `${first}:${second}`, daemon), inSecond);
  // Neither a directory nor what may not be executed is a shim.
  mkdirSync(join(first, 'containerd-shim-runc-v2'));
  t.is(resolveShimBinary('io.containerd.runc.v2', `${first}:${second}`, daemon), inSecond);
  chmodSync(inSecond, 0o644);
  t.is(resolveShimBinary('io.containerd.runc.v2', `:.:relative:${second}`, daemon), inOwn);
  t.is(resolveShimBinary(inOwn, '', daemon), inOwn);
});

for (const runtime of [
  'x',
  'io.x',
  'a.b',
  '',
  '../../bin/sh',
  'bin/sh',
  './sh',
  'io.containerd.runc.v2/../../sh',
  'io..v2',
  'io.containerd.runc.2',
  'io.containerd.runc.v2\n',
  'io.containerd.r\0c.v2',
  '/bin/sh\0x',
]) {
  test(`${JSON.stringify(runtime)} names no runtime`, (t) => {
    const failure = t.throws(() => resolveShimBinary(runtime, '/usr/bin', '/usr/bin/d'), { instanceOf: Failure });
    t.regex(
      failure.message,
      /^invalid runtime name .*, correct runtime name should be either format like `io.containerd.runc.v1` or a full path to the binary: unknown$/,
    );
  });
}

test('what is not installed is said as containerd says it', (t) => {
  const missing = t.throws(() => resolveShimBinary('io.containerd.nope.v1', '/nowhere', '/nowhere/d'), {
    instanceOf: Failure,
  });
  t.is(
    missing.message,
    'runtime "io.containerd.nope.v1" binary not installed "containerd-shim-nope-v1": file does not exist: unknown',
  );
  const absolute = t.throws(() => resolveShimBinary('/nowhere/shim', '', '/nowhere/d'), { instanceOf: Failure });
  t.is(absolute.message, 'invalid custom binary path: stat /nowhere/shim: no such file or directory: unknown');
});

const versions: [prints: string, input: string][] = [
  ['printf "%s:\\n  Version:  1.6.20~ds1\\n  Revision: x\\n" "$0"', 'options'],
  ['printf "%s:\\n  Version:  v2.2.9\\n" "$0"', 'options'],
  ['printf "%s:\\n  Version:  v2.3.0\\n" "$0"', 'bootstrap'],
  ['printf "%s:\\n  Version:  3.0.0-beta\\n" "$0"', 'bootstrap'],
  ['echo "Kata Containers containerd shim (Golang): id: io.containerd.kata.v2, version: 3.2.0"', 'options'],
  ['exit 1', 'options'],
  ['cat /dev/zero', 'options'],
];

for (const [prints, input] of versions) {
  test(`a shim whose -v does: ${prints} reads ${input} at its start`, async (t) => {
    const rig = await makeRig(t);
    t.is(await startInputOf(rig.host, script(join(rig.directory, 'containerd-shim'), prints)), input as never);
  });
}

test('a replaced binary is asked anew, an unchanged one is not', async (t) => {
  const rig = await makeRig(t);
  const path = join(rig.directory, 'shim');
  const asks = join(rig.directory, 'asks');
  script(path, `echo >> ${asks}; echo "shim:"; echo "  Version:  1.7.0"`);
  t.is(await startInputOf(rig.host, path), 'options');
  t.is(await startInputOf(rig.host, path), 'options');
  script(path, `echo >> ${asks}; echo "shim:"; echo "  Version:  2.3.0   "`);
  t.is(await startInputOf(rig.host, path), 'bootstrap');
});
