/** Versions of the format. */
import { spawnSync } from 'node:child_process';
import test from 'ava';
import { needing } from '../../test/helpers/privilege.ts';
import { load, problems } from './rig.ts';

needing('program containerd')('the file that containerd 1.6 prints as its default loads with warnings only', (t) => {
  const printed = spawnSync('containerd', ['config', 'default'], { encoding: 'utf8' });
  const config = load(t, printed.stdout);
  t.is(config.version, 2);
  t.is(config.root, '/var/lib/containerd');
  t.is(config.ttrpc.address, '/run/containerd/containerd.sock.ttrpc');
  t.is(config.debug.level, 'info');
  t.deepEqual(config.plugins['io.containerd.gc.v1.scheduler']?.pause_threshold, 0.02);
  t.is(config.streamProcessors['io.containerd.ocicrypt.decoder.v1.tar']?.path, 'ctd-decoder');
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
