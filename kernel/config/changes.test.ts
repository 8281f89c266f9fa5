import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { parseManifest } from '../plan/manifest.ts';
import { plan } from '../plan/plan.ts';
import { type ConfigState, configChanges } from './changes.ts';
import { loadConfig } from './load.ts';
import { pluginConfigs } from './plugins.ts';
import { ProblemsError } from './problem.ts';

const key =
  '[config.n]\ntype = "integer"\ndefault = 1\ndoc = "a number"\n[config.list]\ntype = "strings"\ndoc = "a list"\n';
const manifests = [
  parseManifest(`api = 1\nid = "x.v1.base"\n${key}`, '/p/base/plugin.toml'),
  parseManifest(`api = 1\nid = "x.v1.top"\nrequires = ["x.v1.base"]\n${key}`, '/p/top/plugin.toml'),
];

function state(t: ExecutionContext, text: string, known = manifests): ConfigState {
  const dir = mkdtempSync(join(tmpdir(), 'changes-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'c.toml'), text);
  const config = loadConfig(join(dir, 'c.toml'), {}, { uid: 0, gid: 0, env: {} });
  const planned = plan(known, { disabled: config.disabledPlugins, required: config.requiredPlugins });
  const configs = pluginConfigs(config, known);
  if (!planned.ok || configs.problems.length > 0)
    throw new ProblemsError(planned.ok ? configs.problems : planned.problems);
  return { config, plan: planned, pluginConfigs: configs };
}

const text = 'version = 3\noom_score = 5\n[grpc]\nuid = 1\ngid = 2\n[plugins."x.v1.top"]\nn = 2\nlist = ["a"]\n';

test('comments, order and spelling are no change', (t) => {
  const same =
    '# a comment\n[plugins."x.v1.top"]\nlist = [ "a" ]\nn = 0x2\n[grpc]\ngid = 2\nuid = 1\n[timeouts]\n"io.containerd.timeout.shim.load" = "5000ms"\n';
  const changes = configChanges(state(t, text), state(t, `version = 3\noom_score = 5\n${same}`));
  t.deepEqual(changes, { start: [], stop: [], reconfigure: [], reload: [], rethread: [], settings: [], nothing: true });
});

test('each kind of change is told apart', (t) => {
  const before = state(t, text);
  t.deepEqual(configChanges(before, state(t, text.replace('n = 2', 'n = 3'))).reconfigure, ['x.v1.top']);
  t.deepEqual(configChanges(before, state(t, `${text}thread = "shared"\n`)).rethread, ['x.v1.top']);
  t.deepEqual(
    configChanges(before, state(t, text.replace('uid = 1', 'uid = 9').replace('oom_score = 5\n', ''))).settings,
    ['oom_score', 'grpc.uid'],
  );
  t.deepEqual(configChanges(before, state(t, `${text}[timeouts]\nx = "1s"\n`)).settings, ['timeouts']);
  const off = state(t, text.replace('[grpc]', 'disabled_plugins = ["x.v1.base"]\n[grpc]'));
  t.deepEqual(configChanges(before, off), {
    start: [],
    stop: ['x.v1.top', 'x.v1.base'],
    reconfigure: [],
    reload: [],
    rethread: [],
    settings: [],
    nothing: false,
  });
  t.deepEqual(configChanges(off, before).start, ['x.v1.base', 'x.v1.top']);
  const newer = [
    manifests[0]!,
    parseManifest(
      `api = 1\nid = "x.v1.top"\nstate = { version = 2, reads = [1, 2] }\nrequires = ["x.v1.base"]\n${key}`,
      '/p/top/plugin.toml',
    ),
  ];
  t.deepEqual(configChanges(before, state(t, text, newer)).reload, ['x.v1.top']);
});

test('a file with one byte changed is refused, or asks for something, or means the same: never anything else', (t) => {
  const before = state(t, text);
  const outcomes = { refused: 0, changed: 0, same: 0 };
  for (let at = 0; at < text.length; at++) {
    const bytes = Buffer.from(text);
    bytes[at] = bytes[at]! ^ 1;
    try {
      outcomes[configChanges(before, state(t, bytes.toString('latin1'))).nothing ? 'same' : 'changed']++;
    } catch (error) {
      if (!(error instanceof ProblemsError)) return t.fail(`byte ${at}: ${error}`);
      outcomes.refused++;
    }
  }
  t.true(outcomes.refused > 20 && outcomes.changed > 5, JSON.stringify(outcomes));
});
