import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { loadConfig, pluginConfigs } from '../config/index.ts';
import { parseManifest } from './manifest.ts';
import { withProxies } from './proxies.ts';

const keys =
  '[config.address]\ntype = "string"\ndoc = "a"\n[config.name]\ntype = "string"\ndoc = "n"\n[config.deadline]\ntype = "duration"\ndefault = "10s"\ndoc = "d"\n';
const plain = parseManifest('api = 1\nid = "io.containerd.content.v1.content"\n', '/p/content/plugin.toml');
const snapshot = parseManifest(
  `api = 1\nid = "io.containerd.snapshotter.v1.proxy"\nproxies = "snapshot"\n[serves."troupe.snapshots.v1.Snapshotter"]\n${keys}`,
  '/p/snapshotter-proxy/plugin.toml',
);
const content = parseManifest(
  `api = 1\nid = "io.containerd.content.v1.proxy"\nproxies = "content"\n[serves."containerd.services.content.v1.Content"]\n${keys}`,
  '/p/content-proxy/plugin.toml',
);

function configOf(t: ExecutionContext, text: string) {
  const dir = mkdtempSync(join(tmpdir(), 'proxies-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const file = join(dir, 'c.toml');
  writeFileSync(file, text);
  return { file, config: loadConfig(file, {}, { uid: 0, gid: 0, env: {} }) };
}

test('a proxy is a plugin under the id that containerd gives it, with its name, its socket, and what the config adds', (t) => {
  const { file, config } = configOf(
    t,
    `version = 3
[proxy_plugins.stargz]
type = "snapshot"
address = "unix:///run/s.sock"
platform = "linux/amd64"
capabilities = ["remap-ids"]
[proxy_plugins.stargz.exports]
root = "/var/lib/s"
[plugins."io.containerd.snapshotter.v1.stargz"]
deadline = "2s"
`,
  );
  const { builtin, proxies, warnings } = withProxies([plain, snapshot, content], config);
  t.deepEqual(builtin, [plain]);
  t.deepEqual(warnings, []);
  t.is(proxies.length, 1);
  const [proxy] = proxies;
  t.like(proxy, {
    id: 'io.containerd.snapshotter.v1.stargz',
    type: 'io.containerd.snapshotter.v1',
    name: 'stargz',
    dir: '/p/snapshotter-proxy',
    file: `${file}:2`,
    platforms: ['linux/amd64'],
    capabilities: ['remap-ids'],
    exports: { root: '/var/lib/s', address: 'unix:///run/s.sock' },
  });
  t.is(proxy!.proxies, undefined);
  t.like(proxy!.serves['troupe.snapshots.v1.Snapshotter'], { name: 'stargz', public: false });
  const { values, problems } = pluginConfigs(config, proxies);
  t.deepEqual(problems, []);
  t.deepEqual(values.get(proxy!.id), { address: '/run/s.sock', name: 'stargz', deadline: 2000 });
});

test('a content store is for clients only where the built-in one is disabled; what cannot be proxied is a warning', (t) => {
  const store = '[proxy_plugins.far]\ntype = "content"\naddress = "/c.sock"\n';
  const publicOf = (text: string): boolean =>
    withProxies([plain, content], configOf(t, text).config).proxies[0]!.serves[
      'containerd.services.content.v1.Content'
    ]!.public;
  t.false(publicOf(`version = 3\n${store}`));
  t.true(publicOf(`version = 3\ndisabled_plugins = ["io.containerd.content.v1.content"]\n${store}`));
  const { file, config } = configOf(t, 'version = 3\n[proxy_plugins.sand]\ntype = "sandbox"\naddress = "/s.sock"\n');
  t.deepEqual(withProxies([plain, content], config).warnings, [
    { file, line: 3, message: 'proxy_plugins.sand: no proxies of type sandbox here, ignored' },
  ]);
});
