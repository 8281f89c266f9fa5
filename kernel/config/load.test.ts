import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Config, ConfigFlags } from './config.ts';
import type { Identity } from './identity.ts';
import { defaultConfig, loadConfig } from './load.ts';
import { ProblemsError, renderProblem } from './problem.ts';

const root: Identity = { uid: 0, gid: 0, env: {} };

/** Writes the files and gives the path of the first. */
function files(t: ExecutionContext, contents: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'config-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const [name, text] of Object.entries(contents)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return join(dir, Object.keys(contents)[0]!);
}

function load(t: ExecutionContext, text: string, flags?: ConfigFlags): Config {
  return loadConfig(files(t, { 'c.toml': text }), flags, root);
}

/** Problems, or warnings, with the directory taken off. */
function told(file: string, what: 'problems' | 'warnings'): string[] {
  const strip = (text: string) => text.replaceAll(`${dirname(file)}/`, '');
  try {
    const config = loadConfig(file, {}, root);
    return what === 'warnings' ? config.warnings.map(renderProblem).map(strip) : [];
  } catch (error) {
    if (!(error instanceof ProblemsError)) throw error;
    return error.problems.map(renderProblem).map(strip);
  }
}

const problems = (t: ExecutionContext, text: string) => told(files(t, { 'c.toml': text }), 'problems');
const warnings = (t: ExecutionContext, text: string) => told(files(t, { 'c.toml': text }), 'warnings');

test('defaults for root, for a user, and for a user without an environment', (t) => {
  const config = defaultConfig({}, root);
  t.is(config.root, '/var/lib/troupe');
  t.is(config.state, '/run/troupe');
  t.is(config.grpc.address, '/run/troupe/troupe.sock');
  t.is(config.ttrpc.address, '/run/troupe/troupe.sock.ttrpc');
  t.is(config.grpc.maxRecvMessageSize, 16 * 2 ** 20);
  t.is(config.timeouts['io.containerd.timeout.shim.load'], 5000);
  t.deepEqual([config.kernel.threads, config.kernel.unresponsiveMs, config.kernel.killMs], ['plugin', 1000, 10_000]);
  t.deepEqual(config.files, []);
  const user = defaultConfig({}, { uid: 7, gid: 8, env: { HOME: '/home/u', XDG_RUNTIME_DIR: '/run/user/7' } });
  t.deepEqual(
    [user.root, user.state, user.grpc.address],
    ['/home/u/.local/share/troupe', '/run/user/7/troupe', '/run/user/7/troupe/troupe.sock'],
  );
  t.deepEqual([user.grpc.uid, user.grpc.gid], [7, 8]);
  const data = defaultConfig({}, { uid: 7, gid: 8, env: { HOME: '/home/u', XDG_DATA_HOME: '/data' } });
  t.deepEqual([data.root, data.state], ['/data/troupe', '/tmp/troupe-7']);
  t.is(defaultConfig({}, { uid: 7, gid: 8, env: { XDG_RUNTIME_DIR: 'relative' } }).state, '/tmp/troupe-7');
});

test('the file that containerd 1.6 prints as its default loads with warnings only', (t) => {
  const printed = spawnSync('containerd', ['config', 'default'], { encoding: 'utf8' });
  if (printed.error !== undefined) return t.pass('no containerd on this machine');
  const config = load(t, printed.stdout);
  t.is(config.version, 2);
  t.is(config.root, '/var/lib/containerd');
  t.is(config.ttrpc.address, '/run/containerd/containerd.sock.ttrpc');
  t.is(config.debug.level, 'info');
  t.deepEqual(config.plugins['io.containerd.gc.v1.scheduler']?.pause_threshold, 0.02);
  t.is(config.streamProcessors['io.containerd.ocicrypt.decoder.v1.tar']?.path, 'ctd-decoder');
});

test('every section, and flags over the file', (t) => {
  const text = `version = 2
root = "/r"
state = "/s"
temp = "/t"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
required_plugins = ["io.containerd.content.v1.content"]
oom_score = -500
[grpc]
address = "/s/g.sock"
uid = 1
gid = 2
max_recv_message_size = 1048576
[ttrpc]
address = "/s/t.sock"
[debug]
address = "/s/d.sock"
level = "debug"
format = "json"
[metrics]
address = "127.0.0.1:1338"
grpc_histogram = true
[cgroup]
path = "/troupe"
[timeouts]
"io.containerd.timeout.shim.load" = "7s"
"x.y" = "1m30s"
[proxy_plugins.fuse]
type = "snapshot"
address = "/run/fuse.sock"
capabilities = ["rebase"]
[proxy_plugins.fuse.exports]
root = "/x"
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.5
[kernel]
threads = "lean"
plugin_dirs = ["/opt/p"]
unresponsive = "2s"
kill = "0"
[kernel.front]
max_connections = 5
memory = "1GiB"
`;
  const config = load(t, text);
  t.deepEqual([config.root, config.state, config.temp, config.oomScore], ['/r', '/s', '/t', -500]);
  t.deepEqual(
    [config.grpc.address, config.grpc.uid, config.grpc.gid, config.grpc.maxRecvMessageSize],
    ['/s/g.sock', 1, 2, 1 << 20],
  );
  t.is(config.ttrpc.address, '/s/t.sock');
  t.deepEqual([config.debug.level, config.debug.format], ['debug', 'json']);
  t.deepEqual(config.metrics, { address: '127.0.0.1:1338', grpcHistogram: true });
  t.deepEqual([config.timeouts['io.containerd.timeout.shim.load'], config.timeouts['x.y']], [7000, 90_000]);
  t.deepEqual(config.proxyPlugins.fuse, {
    type: 'snapshot',
    address: '/run/fuse.sock',
    platform: '',
    capabilities: ['rebase'],
    exports: { root: '/x' },
  });
  t.deepEqual(
    [config.kernel.threads, config.kernel.killMs, config.kernel.front.maxConnections, config.kernel.front.memory],
    ['lean', 0, 5, 2 ** 30],
  );
  t.deepEqual(config.warnings, []);
  t.regex(config.origin(['grpc', 'uid'])!, /c\.toml:10$/);
  t.is(config.origin(['grpc', 'tcp_address'])?.replace(/.*:/, ''), '8');
  t.is(config.origin(['metadata']), undefined);

  const flagged = load(t, text, { address: '/f.sock', root: '/f', state: 'rel', logLevel: 'warn' });
  t.deepEqual([flagged.grpc.address, flagged.ttrpc.address, flagged.root], ['/f.sock', '/f.sock.ttrpc', '/f']);
  t.is(flagged.state, join(process.cwd(), 'rel'));
  t.is(flagged.debug.level, 'warn');
  t.is(flagged.origin(['root']), '--root');
});

test('unknown keys: a warning in containerd’s sections, an error in ours', (t) => {
  t.deepEqual(warnings(t, 'version = 2\nrooot = "/x"\n[grpc]\naddres = "/x"\nfuture = 1\n'), [
    'c.toml:4: unknown key grpc.addres (did you mean "address"?), ignored',
    'c.toml:5: unknown key grpc.future, ignored',
    'c.toml:2: unknown key rooot (did you mean "root"?), ignored',
  ]);
  t.deepEqual(problems(t, '[kernel]\nthread = "lean"\n[kernel.front]\nmemroy = 5\n'), [
    'c.toml:2: unknown key kernel.thread (did you mean "threads"?)',
    'c.toml:4: unknown key kernel.front.memroy (did you mean "memory"?)',
  ]);
});

test('wrong types and values name the key, all in one run', (t) => {
  t.deepEqual(
    problems(
      t,
      `version = 2
root = 5
oom_score = 5000
disabled_plugins = "cri"
[grpc]
uid = 9223372036854775807
max_recv_message_size = -1
[debug]
level = "loud"
[timeouts]
a = "5"
b = "5parsecs"
c = "-1s"
d = 5
[kernel]
kill = "10ms"
[metrics]
grpc_histogram = "yes"
`,
    ),
    [
      'c.toml:2: root must be a string, not 5',
      'c.toml:4: disabled_plugins must be an array of strings, not "cri"',
      'c.toml:3: oom_score must be an integer from -1000 to 1000, not 5000',
      'c.toml:6: grpc.uid must be an integer from 0 to 4294967294, not 9223372036854775807',
      'c.toml:7: grpc.max_recv_message_size must be a size in bytes or such as "16MiB", not -1',
      'c.toml:9: debug.level must be one of trace, debug, info, warn, error, fatal, panic, not "loud"',
      'c.toml:18: metrics.grpc_histogram must be true or false, not "yes"',
      'c.toml:11: timeouts.a must be a duration such as "10s", "1m30s" or "0", not negative, not "5"',
      'c.toml:12: timeouts.b must be a duration such as "10s", "1m30s" or "0", not negative, not "5parsecs"',
      'c.toml:13: timeouts.c must be a duration such as "10s", "1m30s" or "0", not negative, not "-1s"',
      'c.toml:14: timeouts.d must be a duration such as "10s", "1m30s" or "0", not negative, not 5',
      'c.toml:16: kernel.kill is shorter than kernel.unresponsive',
    ],
  );
  t.deepEqual(problems(t, 'version = 3\ngrpc = 1\nplugins = []\nkernel = "x"\n[proxy_plugins.a]\ntype = "boat"\n'), [
    'c.toml:2: grpc must be a table, not 1',
    'c.toml:4: kernel must be a table, not "x"',
    'c.toml:3: plugins must be a table, not an array',
    'c.toml:5: proxy_plugins.a has no address',
    'c.toml:6: proxy_plugins.a.type must be one of snapshot, content, diff, sandbox, not "boat"',
  ]);
});

test('versions', (t) => {
  t.deepEqual(problems(t, 'version = 1\n[plugins.cri]\n'), [
    'c.toml:1: version 1 of the format, with its short names of plugins: convert it with "trouped config migrate --config c.toml"',
  ]);
  t.regex(problems(t, 'disabled_plugins = ["cri"]\n')[0]!, /no version, which means version 1/);
  t.deepEqual(problems(t, 'root = "/x"\n'), [], 'nothing in it depends on the version');
  t.deepEqual(problems(t, 'version = 99\n'), [
    'c.toml:1: version 99 of the format is newer than this daemon, which knows 2 to 4',
  ]);
  t.deepEqual(problems(t, 'version = 0\n'), ["c.toml:1: version 0: the format's versions are 2 to 4"]);
  t.deepEqual(problems(t, 'version = "2"\n'), ['c.toml:1: version must be an integer']);
});

test('version 4 has the listeners among the plugins', (t) => {
  const config = load(
    t,
    `version = 4
[plugins."io.containerd.server.v1.grpc"]
address = "/a.sock"
max_recv_message_size = 5
[plugins."io.containerd.server.v1.ttrpc"]
address = "/t.sock"
[plugins."io.containerd.server.v1.debug"]
address = "/d.sock"
[plugins."io.containerd.server.v1.metrics"]
address = "127.0.0.1:1"
[plugins."io.containerd.metrics.v1.grpc-prometheus"]
grpc_histogram = true
[debug]
level = "warn"
`,
  );
  t.deepEqual([config.grpc.address, config.grpc.maxRecvMessageSize, config.ttrpc.address], ['/a.sock', 5, '/t.sock']);
  t.deepEqual([config.debug.address, config.debug.level], ['/d.sock', 'warn']);
  t.deepEqual(config.metrics, { address: '127.0.0.1:1', grpcHistogram: true });
  t.deepEqual(Object.keys(config.plugins), []);
  t.regex(config.origin(['grpc', 'address'])!, /c\.toml:3$/);
  t.deepEqual(problems(t, 'version = 4\n[plugins."io.containerd.server.v1.grpc"]\naddress = 5\n'), [
    'c.toml:3: grpc.address must be a string, not 5',
  ]);
});

test('version 2 plugins move to where version 3 has them', (t) => {
  const config = load(
    t,
    `version = 2
disabled_plugins = ["io.containerd.internal.v1.restart"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "pause"
stream_server_port = "1"
enable_selinux = true
max_concurrent_downloads = 5
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/certs"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "kata"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
snapshotter = "overlayfs"
sandbox_mode = "shim"
[plugins."io.containerd.internal.v1.restart"]
interval = "5s"
`,
  );
  const plain: unknown = JSON.parse(JSON.stringify(config.plugins, (_, v) => (typeof v === 'bigint' ? Number(v) : v)));
  t.deepEqual(plain, {
    'io.containerd.grpc.v1.cri': { stream_server_port: '1' },
    'io.containerd.cri.v1.images': {
      registry: { config_path: '/certs' },
      max_concurrent_downloads: 5,
      snapshotter: 'native',
      pinned_images: { sandbox: 'pause' },
      runtime_platforms: { kata: { snapshotter: 'overlayfs' } },
    },
    'io.containerd.cri.v1.runtime': {
      enable_selinux: true,
      cni: { bin_dirs: ['/cni'] },
      containerd: { default_runtime_name: 'kata', runtimes: { kata: { snapshotter: 'overlayfs', sandboxer: 'shim' } } },
    },
    'io.containerd.monitor.container.v1.restart': { interval: '5s' },
  });
  t.deepEqual(config.disabledPlugins, ['io.containerd.monitor.container.v1.restart']);
  t.regex(config.origin(['plugins', 'io.containerd.cri.v1.images', 'registry', 'config_path'])!, /:9$/);
});

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

test('no file: fine by default, an error when it was named', (t) => {
  t.throws(() => loadConfig('/nonexistent/c.toml', {}, root), {
    instanceOf: ProblemsError,
    message: '/nonexistent/c.toml: cannot be opened: no such file',
  });
});

test('root and state', (t) => {
  t.deepEqual(problems(t, 'root = "/x"\nstate = "/x/"\n'), ['c.toml:2: root and state are the same directory, /x']);
  t.deepEqual(problems(t, 'root = "/run/x/root"\nstate = "/run/x"\n'), [
    'c.toml:1: root /run/x/root lies inside state /run/x, which does not survive a reboot',
  ]);
  t.deepEqual(problems(t, 'root = "x"\n'), ['c.toml:1: root must be an absolute path, not "x"']);
  t.deepEqual(problems(t, 'root = ""\n'), ['c.toml:1: root must be an absolute path, not ""']);
});

test('socket paths', (t) => {
  const long = `/${'x'.repeat(107)}`;
  t.deepEqual(problems(t, `[grpc]\naddress = "${long}"\n[ttrpc]\naddress = "/t"\n`), [
    `c.toml:2: grpc.address is 108 bytes long, a socket's path can have 107: ${long}`,
  ]);
  t.deepEqual(
    problems(t, `[grpc]\naddress = "/${'ü'.repeat(52)}"\n`).length,
    1,
    'bytes count, also of the path with .ttrpc',
  );
  t.deepEqual(problems(t, '[grpc]\naddress = "/same"\n[ttrpc]\naddress = "/same"\n'), [
    'c.toml:4: grpc and ttrpc have the same address, /same',
  ]);
  t.regex(problems(t, '[grpc]\naddress = "@abstract"\n')[0]!, /must be the absolute path of a unix socket/);
});

test('TCP asks for certificates on both sides', (t) => {
  t.deepEqual(problems(t, '[grpc]\ntcp_address = "127.0.0.1:5"\ntcp_tls_cert = "c"\ntcp_tls_key = "k"\n'), [
    'c.toml:2: grpc.tcp_address without tcp_tls_ca: whoever can connect would be root; kernel.front.insecure_tcp = true allows it',
  ]);
  t.deepEqual(warnings(t, '[grpc]\ntcp_address = "127.0.0.1:5"\n[kernel.front]\ninsecure_tcp = true\n'), [
    'c.toml:2: grpc.tcp_address without tcp_tls_cert, tcp_tls_key, tcp_tls_ca: whoever can connect would be root (allowed by kernel.front.insecure_tcp)',
  ]);
  t.deepEqual(
    problems(t, '[grpc]\ntcp_address = "127.0.0.1:5"\ntcp_tls_cert = "c"\ntcp_tls_key = "k"\ntcp_tls_ca = "a"\n'),
    [],
  );
  t.regex(
    problems(t, '[grpc]\ntcp_address = "nonsense"\n[kernel.front]\ninsecure_tcp = true\n')[0]!,
    /must be HOST:PORT/,
  );
});

test('keys that would be prototypes are inert', (t) => {
  const config = load(
    t,
    'version = 3\n[plugins.__proto__]\nx = 1\n[timeouts]\n__proto__ = "1s"\n[proxy_plugins.__proto__]\ntype="diff"\naddress="/x"\n[constructor.prototype]\ny = 1\n',
  );
  t.is(Object.getPrototypeOf(config.plugins), null);
  t.deepEqual(Object.keys(config.plugins), ['__proto__']);
  t.is(({} as { x?: unknown; y?: unknown }).x ?? ({} as { y?: unknown }).y, undefined);
});

test('a file with one byte changed loads or is refused with its name, and nothing else', (t) => {
  const text =
    'version = 3\nroot = "/r"\n[grpc]\nuid = 1\n[timeouts]\n"a.b" = "1s"\n[plugins."x.v1.y"]\nlist = [1, { a = "b" }]\n';
  const file = files(t, { 'c.toml': text });
  let refused = 0;
  for (let at = 0; at < text.length; at++) {
    for (const bit of [1, 8, 64, 128]) {
      const bytes = Buffer.from(text);
      bytes[at] = bytes[at]! ^ bit;
      writeFileSync(file, bytes);
      try {
        loadConfig(file, {}, root);
      } catch (error) {
        if (!(error instanceof ProblemsError)) return t.fail(`byte ${at} bit ${bit}: ${error}`);
        if (!error.message.includes('c.toml')) return t.fail(`byte ${at} bit ${bit}: ${error.message}`);
        refused++;
      }
    }
  }
  t.true(refused > 100);
});
