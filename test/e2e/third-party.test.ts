/** The samples as folders elsewhere on disk, without node_modules: served, reloaded while they are used, changed by config. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import type { Client, ServiceDefinition } from '../../kernel/sdk/plugin.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { imageLayout, writeOciArchive } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';
import { plugins, trouped, useClient } from '../helpers/trouped.ts';

const samples = fileURLToPath(new URL('../../plugins/samples', import.meta.url));

interface Hello {
  hello(request: { name: string }): Promise<{ text: string; times: number }>;
  count(request: { to: number }): AsyncIterable<{ number: number }>;
}

interface Counts {
  get(request: object): Promise<{ calls: Record<string, number> }>;
}

/** A copy of one sample, and a daemon that is told of it. */
async function useSample(t: ExecutionContext, name: string, config = '') {
  t.timeout(300_000);
  const folder = join(useScratch(t, 'third'), name);
  cpSync(join(samples, name), folder, { recursive: true });
  const text = (more: string) => `version = 3\n[kernel]\nplugin_dirs = ["${folder}"]\n${more}`;
  const daemon = await useDaemon(t, { config: text(config) });
  return {
    daemon,
    folder,
    edit: (file: string, from: string, to: string) => edit(join(folder, file), from, to),
    client: <T>(contract: string, proto: string): T =>
      useClient(t, daemon, definitionFromFile(contract, join(folder, proto))) as Client<ServiceDefinition> & T,
    /** Has the daemon read another config. */
    async configure(more: string): Promise<void> {
      writeFileSync(join(daemon.dir, 'config.toml'), text(more));
      const { code, stdout, stderr } = await trouped(daemon, 'config', 'reload');
      t.is(code, 0, stdout + stderr);
    },
  };
}

function edit(file: string, from: string, to: string): void {
  const text = readFileSync(file, 'utf8');
  if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
  writeFileSync(file, text.replace(from, to));
}

async function reload(t: ExecutionContext, daemon: Daemon, id: string): Promise<void> {
  const { code, stdout, stderr } = await trouped(daemon, 'plugins', 'reload', '--force', id);
  t.regex(stdout + stderr, new RegExp(`^${id.replaceAll('.', '\\.')}: reloaded \\(generation \\d+, `));
  t.is(code, 0);
}

test('hello: a service of its own contract, with state that outlives its code', async (t) => {
  const id = 'example.hello.v1.hello';
  const { daemon, edit, client, configure } = await useSample(t, 'hello');
  const hello = client<Hello>('example.hello.v1.Hello', 'hello.proto');
  t.deepEqual(await hello.hello({ name: 'Ana' }), { text: 'Hello, Ana', times: 1 });
  await t.throwsAsync(hello.hello({ name: '' }), { message: 'whom to greet is missing: invalid argument' });

  // Calls without a pause and a stream over all that follows: none fails, none is lost.
  let calls = 1;
  let done = false;
  const calling = (async () => {
    while (!done) {
      calls += 1;
      t.is((await hello.hello({ name: 'Ana' })).times, calls);
    }
  })();
  const numbers: number[] = [];
  const counting = (async () => {
    for await (const { number } of hello.count({ to: 1_000_000 })) {
      numbers.push(number);
      if (done) break;
    }
  })();

  await configure('[plugins."example.hello.v1.hello"]\ngreeting = "Hi"\n');
  t.is((await hello.hello({ name: 'Bo' })).text, 'Hi, Bo');
  edit('index.ts', `, \${name}`, `, dear \${name}`);
  await reload(t, daemon, id);
  t.deepEqual(await hello.hello({ name: 'Bo' }), { text: 'Hi, dear Bo', times: 2 });

  // What is wrong with a successor is told with its place, and the old one serves on.
  const broken: [file: string, from: string, to: string, reason: RegExp][] = [
    ['index.ts', 'start({ config }) {', 'start({ config }) { oops(', /index\.ts/],
    ['index.ts', 'start({ config }) {', "start({ config }) { throw new Error('not today');", /not today/],
    ['plugin.toml', 'reads = [1, 2]', 'reads = [1]', /plugin\.toml:3: state\.reads must include state\.version, 2/],
    [
      'plugin.toml',
      'api = 1',
      'api = 7',
      /plugin\.toml:1: written for version 7 of troupe\/plugin, this kernel offers 1/,
    ],
    ['plugin.toml', 'public = true', 'pubic = true', /plugin\.toml:7: unknown key .*pubic \(did you mean "public"\?\)/],
    ['hello.proto', 'message CountRequest {', 'message {', /hello\.proto/],
  ];
  for (const [file, from, to, reason] of broken) {
    edit(file, from, to);
    const { code, stdout } = await trouped(daemon, 'plugins', 'reload', '--force', id);
    t.is(code, 1, stdout);
    t.regex(stdout, /^example\.hello\.v1\.hello: kept: /);
    t.regex(stdout, reason);
    edit(file, to, from);
    t.is((await hello.hello({ name: 'Bo' })).text, 'Hi, dear Bo');
  }

  done = true;
  await Promise.all([calling, counting]);
  t.deepEqual(
    numbers,
    numbers.map((_, i) => i + 1),
  );
  const listed = (await plugins(daemon)).find((plugin) => plugin.id === id)!;
  t.deepEqual([listed.state, listed.restarts], ['ready', 0]);
});

test('B17 hello: state of version 1 is taken over by version 2, and back only by a build that reads it', async (t) => {
  const { daemon, folder, client } = await useSample(t, 'hello');
  const hello = client<Hello>('example.hello.v1.Hello', 'hello.proto');
  // As the first version was: it kept names in a list, and did not count.
  const [manifest, code] = ['plugin.toml', 'index.ts'].map((file) => readFileSync(join(folder, file), 'utf8'));
  edit(
    join(folder, 'plugin.toml'),
    'state = { version = 2, reads = [1, 2] }',
    'state = { version = 1, reads = [1, 2] }',
  );
  writeFileSync(
    join(folder, 'index.ts'),
    `import { definePlugin } from 'troupe/plugin';
     export default definePlugin({ start() {
       let names = [];
       return {
         serve: { 'example.hello.v1.Hello': {
           hello({ name }) { names.push(name); return { text: 'Good day, ' + name, times: 0 }; },
           async *count() {},
         } },
         activate(state) { if (Array.isArray(state)) names = state; },
         suspend: () => names,
       };
     } });`,
  );
  await trouped(daemon, 'plugins', 'restart', 'example.hello.v1.hello');
  await reload(t, daemon, 'example.hello.v1.hello');
  t.deepEqual(await hello.hello({ name: 'Ana' }), { text: 'Good day, Ana', times: 0 });
  writeFileSync(join(folder, 'plugin.toml'), manifest!);
  writeFileSync(join(folder, 'index.ts'), code!);
  await reload(t, daemon, 'example.hello.v1.hello');
  t.deepEqual(await hello.hello({ name: 'Ana' }), { text: 'Hello, Ana', times: 2 });
  t.deepEqual(await hello.hello({ name: 'Bo' }), { text: 'Hello, Bo', times: 1 });

  // Back: refused before anything is started, since the state that runs is not what it reads.
  const generation = async () => (await plugins(daemon)).find(({ id }) => id === 'example.hello.v1.hello')!.generation;
  const before = await generation();
  const older = (reads: string) =>
    manifest!.replace('state = { version = 2, reads = [1, 2] }', `state = { version = 1, reads = ${reads} }`);
  writeFileSync(join(folder, 'plugin.toml'), older('[1]'));
  const refused = await trouped(daemon, 'plugins', 'reload', 'example.hello.v1.hello');
  t.is(refused.code, 1);
  t.regex(refused.stdout, /: kept: .*plugin\.toml: .* hands over state of version 2, and this build reads 1: /);
  t.is(await generation(), before);
  t.regex(
    (await trouped(daemon, 'config', 'reload')).stderr,
    /^refused.*\n.*state of version 2, and this build reads 1/,
  );
  writeFileSync(join(folder, 'plugin.toml'), older('[1, 2]'));
  await reload(t, daemon, 'example.hello.v1.hello');
  t.is((await hello.hello({ name: 'Bo' })).times, 2);
});

rootTest('counting-snapshotter: another snapshotter does the work, and counts outlive a reload', async (t) => {
  const { daemon, client } = await useSample(t, 'counting-snapshotter');
  const counts = client<Counts>('example.counting.v1.Counts', 'counts.proto');
  const snapshots = (...args: string[]) => daemon.ctr(['snapshots', '--snapshotter', 'counting', ...args]);
  t.is((await snapshots('prepare', 'one')).code, 0);
  t.is((await snapshots('commit', 'layer', 'one')).code, 0);
  await reload(t, daemon, 'io.containerd.snapshotter.v1.counting');
  t.is((await snapshots('prepare', 'two', 'layer')).code, 0);
  t.regex(
    (await snapshots('mounts', join(daemon.dir, 'mnt'), 'two')).stdout,
    /^mount -t bind .*snapshotter\.v1\.native/,
  );
  const { calls } = await counts.get({});
  t.like(calls, { prepare: 2, commit: 1, mounts: 1 });
  t.regex(
    (await daemon.ctr(['plugins', 'ls', 'id==counting'])).stdout,
    /io\.containerd\.snapshotter\.v1 +counting +.* ok/,
  );
});

rootTest('layer-verifier: a layer on its list is not unpacked, until the list is changed', async (t) => {
  const layout = imageLayout({
    layers: [(dir) => writeFileSync(join(dir, 'a'), 'x'), (dir) => writeFileSync(join(dir, 'b'), 'y')],
  });
  const digest = layout.layers[1]!.descriptor.digest;
  const section = (list: string) => `[plugins."io.containerd.image-verifier.v1.layers"]\nrefused = [${list}]\n`;
  const { daemon, configure } = await useSample(t, 'layer-verifier', section(`"${digest}"`));
  const archive = join(daemon.dir, 'image.tar');
  writeOciArchive(archive, layout, 'example.test/verified:1');
  const refused = await daemon.ctr(['images', 'import', archive]);
  t.not(refused.code, 0);
  t.true(
    refused.stderr.includes(`layer ${digest} in namespace "default": verifier "layers" refuses it: it is on the list`),
    refused.stderr,
  );
  await reload(t, daemon, 'io.containerd.image-verifier.v1.layers');
  t.not((await daemon.ctr(['images', 'import', archive])).code, 0);
  // One that is there and cannot be asked keeps layers out as well.
  await trouped(daemon, 'plugins', 'stop', 'io.containerd.image-verifier.v1.layers');
  const silent = await daemon.ctr(['images', 'import', archive]);
  t.regex(silent.stderr, /verifier "layers" does not answer/);
  await trouped(daemon, 'plugins', 'start', 'io.containerd.image-verifier.v1.layers');
  await configure(section(''));
  const allowed = await daemon.ctr(['images', 'import', archive]);
  t.is(allowed.code, 0, allowed.stderr);
});
