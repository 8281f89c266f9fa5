import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { parseArguments } from './arguments.ts';
import { runCommand } from './run.ts';
import { daemonVersion } from './version.ts';

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const invocation = parseArguments(argv);
  if (invocation.command === 'daemon') throw new Error('that would start the daemon');
  const told = { out: '', err: '' };
  const code = await runCommand(invocation, {
    out: (text) => {
      told.out += text;
    },
    err: (text) => {
      told.err += text;
    },
  });
  return { code, ...told };
}

function file(t: ExecutionContext, text: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'cli-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'c.toml'), text);
  return join(dir, 'c.toml');
}

test('version and help', async (t) => {
  const { version, revision } = daemonVersion();
  t.regex(revision, /^([0-9a-f]{40})?$/);
  t.deepEqual(await run('-v'), { code: 0, out: `${`trouped troupe ${version} ${revision}`.trimEnd()}\n`, err: '' });
  t.regex((await run('--help')).out, /--address, -a SOCKET/);
  t.regex((await run('help', 'publish')).out, /^usage: trouped --address/);
  const wrong = await run('--wrong');
  t.is(wrong.code, 2);
  t.regex(wrong.err, /^trouped: unknown flag --wrong\n\ntrouped: container daemon/);
});

test('the default file, loaded back, is the default again, without a word', async (t) => {
  const printed = await run('config', 'default');
  t.is(printed.code, 0);
  t.is(printed.err, '');
  const path = file(t, printed.out);
  t.deepEqual(await run('-c', path, 'config', 'check'), { code: 0, out: '', err: '' });
  const dumped = await run('-c', path, 'config', 'dump');
  t.deepEqual(
    dumped.out.split('\n').filter((line) => line !== ''),
    printed.out.split('\n').filter((line) => line !== '' && !line.startsWith('#')),
  );
  for (const key of printed.out.matchAll(/^([\w"].*?) = /gm))
    t.regex(
      printed.out,
      new RegExp(`(#.*\n|timeout\\..*\n|\\[timeouts\\]\n)"?${key[1]!.replaceAll(/["\\]/g, '')}`),
      `${key[1]} is explained`,
    );
});

test('dump shows what is in effect: file, flags, and sections of plugins that are elsewhere', async (t) => {
  const path = file(
    t,
    'version = 2\n[grpc]\ngid = 7\n[timeouts]\n"a.b" = "1m30s"\n[proxy_plugins.fuse]\ntype = "snapshot"\naddress = "/f.sock"\n[plugins."x.v1.elsewhere"]\nn = 1\n[plugins."x.v1.elsewhere".inner]\ns = "\\u0007"\n',
  );
  const { code, out, err } = await run('-c', path, '--address', '/a.sock', 'config', 'dump');
  t.is(code, 0);
  t.regex(err, /^warning: .*c\.toml:9: plugins\."x\.v1\.elsewhere": no such plugin here, ignored\n$/);
  for (const line of [
    'version = 3',
    'address = "/a.sock"',
    'gid = 7',
    '"a.b" = "1m30s"',
    '[proxy_plugins.fuse]',
    '[plugins."x.v1.elsewhere"]',
    'n = 1',
  ]) {
    t.true(out.split('\n').includes(line), line);
  }
  const again = await run('-c', file(t, out), 'config', 'dump');
  t.is(again.out, out, 'a dump is a config file with the same meaning');
});

test('a broken file: every mistake, each on a line of its own, and exit 1', async (t) => {
  const path = file(t, 'root = 5\n[kernel]\nkill = "5"\nthreds = "lean"\n');
  const { code, out, err } = await run('-c', path, 'config', 'dump');
  t.is(code, 1);
  t.is(out, '');
  t.is(err.split('\n').length, 4);
  t.true(err.startsWith(`trouped: ${path}:1: root must be a string, not 5\n`), err);
  t.is((await run('-c', '/nonexistent', 'plan')).code, 1);
  t.is(
    (await run('-l', 'loud', 'config', 'check')).err,
    'trouped: --log-level must be one of trace, debug, info, warn, error, fatal, panic, not "loud"\n',
  );
});

test('migrate brings versions 1, 2 and 4 to 3', async (t) => {
  const one = await run(
    '-c',
    file(
      t,
      'disabled_plugins = ["cri"]\n[plugins.scheduler]\npause_threshold = 0.5\n[plugins.restart]\ninterval = "1s"\n',
    ),
    'config',
    'migrate',
  );
  t.is(
    one.out.replaceAll('\n\n', '\n'),
    'version = 3\ndisabled_plugins = [ "io.containerd.grpc.v1.cri" ]\n[plugins."io.containerd.gc.v1.scheduler"]\npause_threshold = 0.5\n[plugins."io.containerd.monitor.container.v1.restart"]\ninterval = "1s"\n',
  );
  const four = await run(
    '-c',
    file(t, 'version = 4\n[plugins."io.containerd.server.v1.grpc"]\naddress = "/a"\n'),
    'config',
    'migrate',
  );
  t.is(four.out.replaceAll('\n\n', '\n'), 'version = 3\n[grpc]\naddress = "/a"\n');
  const path = file(t, one.out);
  t.is((await run('-c', path, 'config', 'check')).code, 0, 'what is migrated loads');
  t.is((await run('-c', path, 'config', 'migrate')).out, readFileSync(path, 'utf8'), 'and is not changed again');
  t.is((await run('-c', file(t, 'version = 9\n'), 'config', 'migrate')).code, 1);
});

test('explain: meaning, default, value and where it comes from', async (t) => {
  const path = file(
    t,
    'version = 3\n[grpc]\naddress = "/a.sock"\n[plugins."io.containerd.snapshotter.v1.overlayfs"]\nroot_path = "/x"\n',
  );
  t.regex(
    (await run('-c', path, 'config', 'explain', 'grpc.address')).out,
    /^grpc\.address\n {2}path of the unix socket\n {2}type {5}string\n {2}default {2}".*troupe\.sock"\n {2}value {4}"\/a\.sock", from .*c\.toml:3\n$/,
  );
  t.regex(
    (await run('-c', path, 'config', 'explain', 'kernel.kill')).out,
    / {2}default {2}"10s"\n {2}value {4}"10s", the default\n$/,
  );
  t.regex(
    (await run('-c', path, '--address', '/f', 'config', 'explain', 'grpc.address')).out,
    /value {4}"\/f", from --address\n/,
  );
  for (const key of [
    'plugins."io.containerd.snapshotter.v1.overlayfs".root_path',
    'io.containerd.snapshotter.v1.overlayfs.root_path',
  ]) {
    t.regex((await run('-c', path, 'config', 'explain', key)).out, /value {4}"\/x", from .*c\.toml:5\n/, key);
  }
  t.regex(
    (await run('-c', path, 'config', 'explain', 'timeouts."io.containerd.timeout.shim.load"')).out,
    /value {4}"5s", the default/,
  );
  const unknown = await run('-c', path, 'config', 'explain', 'grpc.adress');
  t.deepEqual(
    [unknown.code, unknown.err],
    [1, 'trouped: config explain: no key grpc.adress (did you mean grpc.address?)\n'],
  );
  t.is((await run('-c', path, 'config', 'explain', '= [')).code, 1);
});

test('plan prints the order, and what is left out of it; check calls that wrong', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'cli-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'plugin.toml'), 'api = 1\nid = "x.v1.mine"\nrequires = ["x.v1.nobody"]\n');
  const path = file(t, `version = 3\n[kernel]\nplugin_dirs = ["${dir}"]\n`);
  const text = `${dir}/plugin.toml: x.v1.mine requires x.v1.nobody, which no plugin is`;
  const { code, out } = await run('-c', path, 'plan');
  t.is(code, 0);
  t.regex(out, /^\d+ plugins start in \d+ waves\n/);
  t.true(out.includes(`left out, something is wrong with them\n   x.v1.mine: ${text}\n`), out);
  const checked = await run('-c', path, 'config', 'check');
  t.deepEqual([checked.code, checked.err], [1, `trouped: ${text}\n`]);
  const needed = file(t, `version = 3\nrequired_plugins = ["x.v1.mine"]\n[kernel]\nplugin_dirs = ["${dir}"]\n`);
  const refused = await run('-c', needed, 'plan');
  t.is(refused.code, 1);
  t.true(refused.out.includes(`required_plugins: x.v1.mine is left out: ${text}`), refused.out);
});
