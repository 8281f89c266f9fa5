/** Files of several, and who may write them. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { loadConfig } from './load.ts';
import { files, problems, root, told } from './rig.ts';

test('imports: globs, relative paths, order, lists joined, maps replaced by entry', (t) => {
  const file = files(t, {
    'c.toml': `version = 3
imports = ["conf.d/*.toml"]
oom_score = 1
disabled_plugins = ["a.b"]
[grpc]
uid = 5
[timeouts]
x = "1s"
y = "1s"
[proxy_plugins.p]
type = "snapshot"
address = "/one"
platform = "linux/amd64"
[plugins."x.v1.y"]
list = ["a"]
keep = "yes"
`,
    'conf.d/20.toml': 'oom_score = 3\n[plugins."x.v1.y"]\nlist = ["a", "b"]\n',
    'conf.d/10.toml':
      'imports = ["../more.toml"]\noom_score = 2\ndisabled_plugins = ["a.b", "c.d"]\n[timeouts]\ny = "2s"\n[proxy_plugins.p]\ntype = "snapshot"\naddress = "/two"\n',
    'conf.d/.hidden.toml': '[debug]\nlevel = "warn"\n',
    'conf.d/readme.md': 'not TOML at all',
    'more.toml': 'version = 3\nimports = ["c.toml", "more.toml"]\n[grpc]\ngid = 6\n',
  });
  const config = loadConfig(file, {}, root);
  t.deepEqual(
    config.files.map((f) => f.replace(`${dirname(file)}/`, '')),
    ['c.toml', 'conf.d/.hidden.toml', 'conf.d/10.toml', 'conf.d/20.toml', 'more.toml'],
  );
  t.is(config.oomScore, 3);
  t.is(config.debug.level, 'warn');
  t.deepEqual(config.disabledPlugins, ['a.b', 'c.d']);
  t.deepEqual([config.grpc.uid, config.grpc.gid], [5, 6]);
  t.deepEqual([config.timeouts.x, config.timeouts.y], [1000, 2000]);
  t.deepEqual([config.proxyPlugins.p?.address, config.proxyPlugins.p?.platform], ['/two', '']);
  t.deepEqual({ ...config.plugins['x.v1.y'] }, { list: ['a', 'b'], keep: 'yes' });
  t.regex(config.origin(['oom_score'])!, /conf\.d\/20\.toml:1$/);
  t.regex(config.origin(['proxy_plugins', 'p', 'address'])!, /10\.toml:8$/);
  t.regex(config.origin(['plugins', 'x.v1.y', 'keep'])!, /c\.toml:16$/);
});

test('a zero value in a drop-in changes nothing, and that is said', (t) => {
  const file = files(t, {
    'c.toml': 'version = 3\nimports = ["d.toml"]\n[metrics]\ngrpc_histogram = true\n',
    'd.toml': '[metrics]\ngrpc_histogram = false\n',
  });
  t.true(loadConfig(file, {}, root).metrics.grpcHistogram);
  t.deepEqual(told(file, 'warnings'), [
    'd.toml:2: metrics.grpc_histogram = false does not undo what an earlier file says: zero values of a drop-in are ignored',
  ]);
});

test('imports that cannot be: absent, directory, FIFO, broken, too new, too many', (t) => {
  const file = files(t, {
    'c.toml': 'version = 2\nimports = [\n"absent.toml", "dir", "fifo", "broken.toml", "new.toml", "none/*.toml"]\n',
    'dir/x': '',
    'broken.toml': 'a = \n',
    'new.toml': 'version = 3\n',
  });
  t.is(spawnSync('mkfifo', [join(dirname(file), 'fifo')]).status, 0);
  const found = told(file, 'problems');
  t.deepEqual(found.slice(0, 3), [
    'c.toml:2: import absent.toml: cannot be opened: no such file',
    'c.toml:2: import dir: not a regular file',
    'c.toml:2: import fifo: not a regular file',
  ]);
  t.regex(found[3]!, /^broken\.toml:1:\d+: /);
  t.is(found[4], 'new.toml:1: version 3, while the file that imports it has version 2');
  t.is(found.length, 5);

  const many = files(t, { 'c.toml': 'imports = ["d/*"]\n' });
  mkdirSync(join(dirname(many), 'd'));
  for (let i = 0; i <= 1000; i++) writeFileSync(join(dirname(many), `d/${i}`), '');
  t.deepEqual(told(many, 'problems'), ['c.toml:1: imports name more than 1000 files, the limit']);
  t.deepEqual(problems(t, 'imports = "x"\n'), ['c.toml:1: imports must be an array of strings']);
});

test('a file that anyone may write is warned about', (t) => {
  const file = files(t, { 'c.toml': 'version = 3\n' });
  chmodSync(file, 0o666);
  t.deepEqual(told(file, 'warnings'), ['c.toml: anyone may write this file (mode 666)']);
});
