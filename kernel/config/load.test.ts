import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { defaultConfig, loadConfig } from './load.ts';
import { ProblemsError } from './problem.ts';
import { files, load, problems, root, warnings } from './rig.ts';

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

test('no file: fine by default, an error when it was named', (t) => {
  t.throws(() => loadConfig('/nonexistent/c.toml', {}, root), {
    instanceOf: ProblemsError,
    message: '/nonexistent/c.toml: cannot be opened: no such file',
  });
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
