import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

const launcher = join(import.meta.dirname, '../trouped');
const arch = process.arch;

/** A checkout whose main.ts tells how it was started; `node` says which Node its packages hold. */
function checkout(t: ExecutionContext, node: 'pinned' | 'hoisted' | 'none'): string {
  const top = mkdtempSync(join(tmpdir(), 'launcher-'));
  t.teardown(() => rmSync(top, { recursive: true }));
  const dir = join(top, 'lib/troupe');
  mkdirSync(join(dir, 'kernel'), { recursive: true });
  mkdirSync(join(dir, 'node_modules'));
  copyFileSync(launcher, join(dir, 'kernel/trouped'));
  chmodSync(join(dir, 'kernel/trouped'), 0o755);
  writeFileSync(
    join(dir, 'kernel/main.ts'),
    `const told: object = { pid: process.pid, argv: process.argv.slice(2), flags: process.execArgv, main: process.argv[1],
      cache: process.env.NODE_COMPILE_CACHE, threads: process.env.UV_THREADPOOL_SIZE };
    console.log(JSON.stringify(told));`,
  );
  const home = node === 'pinned' ? join(dir, 'node_modules') : join(top, 'lib');
  if (node !== 'none') {
    mkdirSync(join(home, `node-linux-${arch}/bin`), { recursive: true });
    symlinkSync(process.execPath, join(home, `node-linux-${arch}/bin/node`));
  }
  return dir;
}

interface Told {
  pid: number;
  argv: string[];
  flags: string[];
  main: string;
  cache?: string;
  threads: string;
}

function start(path: string, args: string[] = [], env: Record<string, string> = {}) {
  const run = spawnSync(path, args, { encoding: 'utf8', env: { PATH: '/usr/bin:/bin', ...env } });
  return { ...run, told: run.status === 0 ? (JSON.parse(run.stdout) as Told) : undefined };
}

test('the daemon is the process that was started, with its flags and arguments as given', (t) => {
  const dir = checkout(t, 'pinned');
  const run = start(join(dir, 'kernel/trouped'), ['--root', '/a b', '', '$x']);
  t.is(run.stderr, '');
  t.is(run.told?.pid, run.pid);
  t.deepEqual(run.told?.argv, ['--root', '/a b', '', '$x']);
  t.true(run.told?.flags.includes('--disable-sigusr1'));
  t.is(run.told?.main, join(dir, 'kernel/main.ts'));
  t.is(run.told?.threads, '16');
  t.is(run.told?.cache, join(dir, '.cache/v8'));
});

test('called through links, a PATH, or with the Node hoisted beside the package', (t) => {
  const dir = checkout(t, 'hoisted');
  const bin = join(dir, '../.bin');
  mkdirSync(bin);
  symlinkSync('../troupe/kernel/trouped', join(bin, 'trouped'));
  symlinkSync(join(bin, 'trouped'), join(dir, 'again'));
  for (const path of [join(bin, 'trouped'), join(dir, 'again')])
    t.is(start(path).told?.main, join(dir, 'kernel/main.ts'), path);
  const found = spawnSync('trouped', [], { encoding: 'utf8', env: { PATH: `${bin}:/usr/bin:/bin` } });
  t.is(found.status, 0, found.stderr);
});

test('which Node: TROUPE_NODE, and one of the PATH only when it is new enough', (t) => {
  const dir = checkout(t, 'none');
  const path = join(dir, 'kernel/trouped');
  t.is(start(path, [], { TROUPE_NODE: process.execPath }).status, 0);
  t.regex(start(path, [], { TROUPE_NODE: dir }).stderr, /^trouped: TROUPE_NODE=.* is not an executable file\n$/);
  const bin = join(dir, 'bin');
  mkdirSync(bin);
  const fake = (version: string) => writeFileSync(join(bin, 'node'), `#!/bin/sh\necho ${version}\n`, { mode: 0o755 });
  for (const old of ['v20.19.2', 'v9.0.0', 'nonsense', '']) {
    fake(old);
    const run = start(path, [], { PATH: `${bin}:/usr/bin:/bin` });
    t.is(run.status, 1, old);
    t.regex(run.stderr, /^trouped: needs Node 26 or later, and .*\nRun 'npm ci' in /, old);
  }
  rmSync(join(bin, 'node'));
  symlinkSync(process.execPath, join(bin, 'node'));
  t.is(start(path, [], { PATH: `${bin}:/usr/bin:/bin` }).status, 0);
  rmSync(join(bin, 'node'));
  for (const tool of ['uname', 'readlink', 'sh']) symlinkSync(`/usr/bin/${tool}`, join(bin, tool));
  t.regex(start(path, [], { PATH: bin }).stderr, /^trouped: found no Node\. Run 'npm ci' in /);
});

test('the cache goes where it is told to, and options that break the limits are refused', (t) => {
  const dir = checkout(t, 'pinned');
  const path = join(dir, 'kernel/trouped');
  t.is(start(path, [], { TROUPE_CACHE: join(dir, 'own') }).told?.cache, join(dir, 'own'));
  t.is(start(path, [], { XDG_CACHE_HOME: join(dir, 'xdg') }).told?.cache, join(dir, 'xdg/troupe'));
  t.is(start(path, [], { NODE_COMPILE_CACHE: join(dir, 'set') }).told?.cache, join(dir, 'set'));
  t.is(start(path, [], { UV_THREADPOOL_SIZE: '4' }).told?.threads, '4');
  const refused = start(path, [], { NODE_OPTIONS: '--no-warnings --max-old-space-size=4096' });
  t.is(refused.status, 2);
  t.regex(refused.stderr, /NODE_OPTIONS sets --max-old-space-size/);
  t.is(start(path, [], { NODE_OPTIONS: '--no-warnings' }).status, 0);
});
