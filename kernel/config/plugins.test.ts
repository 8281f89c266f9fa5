import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { parseManifest } from '../plan/manifest.ts';
import { loadConfig } from './load.ts';
import { pluginConfig, pluginConfigs } from './plugins.ts';
import type { Problem } from './problem.ts';

function load(t: ExecutionContext, text: string) {
  const dir = mkdtempSync(join(tmpdir(), 'plugins-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const file = join(dir, 'c.toml');
  writeFileSync(file, text);
  return loadConfig(file, {}, { uid: 0, gid: 0, env: {} });
}

const lines = (problems: readonly Problem[]) => problems.map((problem) => `${problem.line}: ${problem.message}`);

const overlay = parseManifest(
  `api = 1
id = "io.containerd.snapshotter.v1.overlayfs"
aliases = ["troupe.old.overlay", "io.containerd.internal.v1.restart"]
thread = "lean"
[config.root_path]
type = "string"
doc = "where"
[config.delay]
type = "duration"
default = "5s"
doc = "pause"
[config.budget]
type = "size"
default = "1MiB"
doc = "bytes"
[config.ratio]
type = "float"
default = 0.5
doc = "part"
[config.level]
type = "integer"
default = 3
min = 1
max = 9
doc = "effort"
[config.kinds]
type = "strings"
default = ["a"]
doc = "which"
[config.options]
type = "table"
doc = "free"
[config.rules]
type = "tables"
doc = "free, several"
[config.sync]
type = "boolean"
default = true
doc = "wait"
`,
  '/p/overlay/plugin.toml',
);

test('defaults are copies, and values come in milliseconds, bytes and plain numbers', (t) => {
  const config = load(t, 'version = 3\n');
  const { value } = pluginConfig(config, overlay);
  t.deepEqual(
    { ...value, options: { ...(value.options as object) } },
    {
      root_path: '',
      delay: 5000,
      budget: 1 << 20,
      ratio: 0.5,
      level: 3,
      kinds: ['a'],
      options: {},
      rules: [],
      sync: true,
    },
  );
  (value.kinds as string[]).push('b');
  t.deepEqual(pluginConfig(config, overlay).value.kinds, ['a']);
});

test('values of the file, under the id and its aliases', (t) => {
  const config = load(
    t,
    `version = 2
[plugins."io.containerd.snapshotter.v1.overlayfs"]
delay = "1m30s"
budget = 4096
ratio = 1
sync = false
[plugins."io.containerd.snapshotter.v1.overlayfs".options]
n = 1
big = 9223372036854775807
deep = [{ x = 2 }]
[[plugins."io.containerd.snapshotter.v1.overlayfs".rules]]
platform = "linux"
[plugins."troupe.old.overlay"]
delay = "9s"
level = 5
[plugins."io.containerd.internal.v1.restart"]
kinds = []
`,
  );
  const { value, problems, warnings } = pluginConfig(config, overlay);
  t.deepEqual([problems, warnings], [[], []]);
  t.deepEqual(
    [value.delay, value.budget, value.ratio, value.sync, value.level, value.kinds],
    [90_000, 4096, 1, false, 5, []],
  );
  t.deepEqual(JSON.parse(JSON.stringify(value.options, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))), {
    n: 1,
    big: '9223372036854775807n',
    deep: [{ x: 2 }],
  });
  t.notThrows(() => structuredClone(value));
});

test('what does not fit has its line: errors for mistakes, warnings for containerd’s own keys', (t) => {
  const config = load(
    t,
    `version = 3
[plugins."io.containerd.snapshotter.v1.overlayfs"]
delay = "-5s"
level = 12
kinds = "a"
upperdir_label = true
dealy = "5s"
`,
  );
  const { problems, warnings, value } = pluginConfig(config, overlay);
  t.deepEqual(lines(problems), [
    '3: plugins."io.containerd.snapshotter.v1.overlayfs".delay must be a duration such as "10s", "1m30s" or "0", not negative, not "-5s"',
    '4: plugins."io.containerd.snapshotter.v1.overlayfs".level must be an integer from 1 to 9, not 12',
    '5: plugins."io.containerd.snapshotter.v1.overlayfs".kinds must be an array of strings, not "a"',
    '7: unknown key plugins."io.containerd.snapshotter.v1.overlayfs".dealy (did you mean "delay"?)',
  ]);
  t.deepEqual(lines(warnings), [
    '6: plugins."io.containerd.snapshotter.v1.overlayfs".upperdir_label has no effect here',
  ]);
  t.is(value.delay, 5000);
});

test('sections of no plugin, threads by config and by the lean grouping', (t) => {
  const alone = parseManifest('api = 1\nid = "x.v1.alone"\n', '/p/alone/plugin.toml');
  const text = `version = 3
[plugins."io.containerd.grpc.v1.cri"]
x = 1
[plugins."x.v1.alnoe"]
[plugins."x.v1.alone"]
`;
  const found = pluginConfigs(load(t, text), [overlay, alone]);
  t.deepEqual(lines(found.warnings), [
    '2: plugins."io.containerd.grpc.v1.cri": no such plugin here, ignored',
    '4: plugins."x.v1.alnoe": no such plugin here, ignored (did you mean "x.v1.alone"?)',
  ]);
  t.deepEqual(
    [...found.threads],
    [
      [overlay.id, overlay.id],
      [alone.id, alone.id],
    ],
  );
  t.deepEqual([...found.values.keys()], [overlay.id, alone.id]);
  t.deepEqual(
    [...pluginConfigs(load(t, '[kernel]\nthreads = "lean"\n'), [overlay, alone]).threads.values()],
    ['lean', alone.id],
  );
  const named = pluginConfigs(load(t, `${text}thread = "shared"\n`), [overlay, alone]);
  t.deepEqual([...named.threads.values()], [overlay.id, 'shared']);
  t.deepEqual(named.problems, []);
});
