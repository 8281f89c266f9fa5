/** B21 A config that changes under a daemon that runs: what it would do is said before, all of it is done or nothing, and what is wrong changes nothing. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import { eventually } from '../helpers/eventually.ts';
import { Daemon, useDaemon } from '../helpers/daemon.ts';
import { useScratch } from '../helpers/scratch.ts';
import { plugins, trouped, useClient } from '../helpers/trouped.ts';

const samples = fileURLToPath(new URL('../../plugins/samples', import.meta.url));
const hello = 'example.hello.v1.hello';

interface Hello {
  hello(request: { name: string }): Promise<{ text: string; times: number }>;
}

async function useReloadable(t: ExecutionContext) {
  t.timeout(300_000);
  const dir = useScratch(t, 'config');
  for (const name of ['hello', 'layer-verifier']) cpSync(join(samples, name), join(dir, name), { recursive: true });
  const text = `version = 3
oom_score = 0
disabled_plugins = ["io.containerd.image-verifier.v1.layers"]
[kernel]
plugin_dirs = ["${dir}"]
[debug]
level = ""
[plugins."${hello}"]
greeting = "Hello"
[plugins."io.containerd.snapshotter.v1.native"]
sync_remove = false
`;
  const daemon = await useDaemon(t, { config: text });
  const file = join(daemon.dir, 'config.toml');
  const client = useClient(t, daemon, definitionFromFile('example.hello.v1.Hello', join(dir, 'hello/hello.proto')));
  const kernel = useClient(t, daemon, KernelDefinition);
  return {
    daemon,
    dir,
    text,
    file,
    kernel,
    client: client as never as Hello,
    write: (next: string) => writeFileSync(file, next),
    /** Generation, restarts and state of every plugin: what a refusal must leave as it is. */
    async running() {
      const { plugins: all } = await kernel.list({ ids: [] });
      return all.map(({ id, state, generation, restarts }) => ({ id, state, generation, restarts }));
    },
  };
}

async function refused(t: ExecutionContext, daemon: Daemon, reason: RegExp): Promise<void> {
  const { code, stdout, stderr } = await trouped(daemon, 'config', 'reload');
  t.is(code, 1, stdout);
  t.regex(stderr, /^refused, nothing is changed\n/);
  t.regex(stderr, reason);
}

test('B21 a plan first, then all of it: configured live, started, stopped, and not a call fails', async (t) => {
  const { daemon, text, client, write, kernel } = await useReloadable(t);
  const reload = async (...args: string[]) => {
    const { code, stdout, stderr } = await trouped(daemon, 'config', 'reload', ...args);
    t.is(code, 0, stderr);
    return stdout;
  };
  let done = false;
  let calls = 0;
  const calling = (async () => {
    for (; !done; calls++) t.is((await client.hello({ name: 'Ana' })).times, calls + 1);
  })();

  t.is(await reload(), 'nothing has changed\n');
  // The same, written otherwise.
  write(
    `# a comment\n${text.replace('oom_score = 0\n', '').replace('[debug]\n', 'unresponsive = "1000ms"\n\n[debug]\nlevel = "debug" # as the flag says\n').replace('level = ""\n', '')}`,
  );
  t.is(await reload('--dry-run'), 'nothing has changed\n');

  const next = text
    .replace(
      'disabled_plugins = ["io.containerd.image-verifier.v1.layers"]',
      'disabled_plugins = ["io.containerd.snapshotter.v1.native"]',
    )
    .replace('"Hello"', '"Hi"');
  write(next);
  const plan = [
    'start     io.containerd.image-verifier.v1.layers',
    `configure ${hello}`,
    'stop      io.containerd.snapshotter.v1.native',
  ];
  const lines = (head: string) => [head, ...plan.map((line) => `  ${line}`), ''].join('\n');
  t.is(await reload('--dry-run'), lines('a reload would'));
  t.is((await client.hello({ name: 'Bo' })).text, 'Hello, Bo');
  t.is(await reload(), lines('reloaded'));
  t.is((await client.hello({ name: 'Bo' })).text, 'Hi, Bo');
  const states = Object.fromEntries((await plugins(daemon)).map(({ id, state }) => [id, state]));
  t.is(states['io.containerd.image-verifier.v1.layers'], 'ready');
  t.is(states['io.containerd.snapshotter.v1.native'], 'disabled');
  t.is(await reload(), 'nothing has changed\n');

  // And back, by the signal.
  write(text);
  process.kill(daemon.pid, 'SIGHUP');
  const isBack = async () =>
    (await kernel.list({ ids: [] })).plugins.some(({ id, state }) => id.endsWith('native') && state === 'ready');
  await eventually(t, 'what was stopped is back', isBack);
  await eventually(t, 'what was configured is', async () => (await client.hello({ name: 'Bo' })).text === 'Hello, Bo');
  done = true;
  await calling;
  t.true(calls > 10, `${calls} calls`);
});

test('B21 what is wrong, or takes a restart, is refused with its place, and nothing is touched', async (t) => {
  const { daemon, dir, text, file, client, write, running } = await useReloadable(t);
  await client.hello({ name: 'Ana' });
  const before = await running();
  const cases: [from: string, to: string, reason: RegExp][] = [
    ['oom_score = 0', 'oom_score = ', /config\.toml:2/],
    [
      'greeting = "Hello"',
      'greeting = 7',
      /config\.toml:9: plugins\."example\.hello\.v1\.hello"\.greeting must be a string, not 7/,
    ],
    ['greeting =', 'greting =', /config\.toml:9: unknown key .*greting \(did you mean "greeting"\?\)/],
    ['[debug]', 'kill = "5 parsecs"\n[debug]', /config\.toml:6: kernel\.kill must be a duration/],
    ['version = 3', `version = 3\nroot = "${daemon.dir}/elsewhere"`, /^(?!.*root)/s],
    ['[debug]', 'threads = "lean"\n[debug]', /kernel\.threads: only a restart of the daemon changes it/],
    [
      '[debug]',
      '[metrics]\naddress = "127.0.0.1:1"\n[debug]',
      /metrics\.address: only a restart of the daemon changes it/,
    ],
    ['[debug]', '[timeouts]\n"io.containerd.timeout.shim.load" = "9s"\n[debug]', /timeouts: only a restart/],
    [`"${dir}"`, `"${dir}", "${dir}/nowhere"`, /nowhere: ENOENT/],
    [
      'disabled_plugins =',
      'required_plugins = ["x.v1.y"]\ndisabled_plugins =',
      /required_plugins: no plugin "x\.v1\.y"/,
    ],
  ];
  for (const [from, to, reason] of cases) {
    t.true(text.includes(from), from);
    write(text.replace(from, to));
    if (to.includes('root =')) {
      // --root has the last word.
      t.is((await trouped(daemon, 'config', 'reload')).stdout, 'nothing has changed\n');
      continue;
    }
    await refused(t, daemon, reason);
    t.deepEqual(await running(), before, to);
  }

  // A file that is gone, a fifo and what is no text: the daemon does not even pause.
  write('\0\xff');
  await refused(t, daemon, /config\.toml/);
  process.kill(daemon.pid, 'SIGHUP');
  process.kill(daemon.pid, 'SIGHUP');
  t.is((await client.hello({ name: 'Ana' })).times, 2);

  // A plugin of a folder that goes bad while it runs goes on running.
  write(text);
  const manifest = join(dir, 'hello/plugin.toml');
  const good = readFileSync(manifest, 'utf8');
  writeFileSync(manifest, good.replace('api = 1', 'api = 2'));
  await refused(t, daemon, /hello\/plugin\.toml:1: written for version 2/);
  t.deepEqual(await running(), before);
  writeFileSync(manifest, good);
  t.is((await trouped(daemon, 'config', 'reload')).stdout, 'nothing has changed\n');
  t.is((await client.hello({ name: 'Ana' })).times, 3);
  t.true(daemon.log.some((line) => line.includes('config is not reloaded') && line.includes(file)));
});

test('B21 all or nothing: what one plugin does not take is taken back from the others', async (t) => {
  const { daemon, dir, text, client, write, running } = await useReloadable(t);
  // It is enabled together with a change of hello, and throws.
  mkdirSync(join(dir, 'broken'));
  writeFileSync(
    join(dir, 'broken/plugin.toml'),
    'api = 1\nid = "example.broken.v1.broken"\nwants = ["io.containerd.image-verifier.v1.layers"]\n',
  );
  writeFileSync(join(dir, 'broken/index.ts'), "throw new Error('not today');\nexport {};\n");
  const before = await running();
  write(text.replace('"Hello"', '"Hi"').replace('["io.containerd.image-verifier.v1.layers"]', '[]'));
  await refused(
    t,
    daemon,
    /plugin example\.broken\.v1\.broken does not take it: .*broken\/index\.ts:1: not today; what had been changed has been changed back/,
  );
  t.is((await client.hello({ name: 'Ana' })).text, 'Hello, Ana');
  t.deepEqual(await running(), before);

  // One that refuses its new config, after others took theirs.
  writeFileSync(
    join(dir, 'broken/plugin.toml'),
    'api = 1\nid = "example.broken.v1.broken"\nafter = ["example.hello.v1.hello"]\n[config.n]\ntype = "integer"\ndefault = 1\ndoc = "n"\n',
  );
  writeFileSync(
    join(dir, 'broken/index.ts'),
    `import { definePlugin } from 'troupe/plugin';
     export default definePlugin({ start: () => ({ serve: {}, configure(next) { if (next.n > 1) throw new Error('too much'); } }) });`,
  );
  write(text);
  t.is((await trouped(daemon, 'config', 'reload')).stdout, 'reloaded\n  start     example.broken.v1.broken\n');
  const running2 = await running();
  write(`${text.replace('"Hello"', '"Hi"')}[plugins."example.broken.v1.broken"]\nn = 2\n`);
  await refused(t, daemon, /too much/);
  t.is((await client.hello({ name: 'Ana' })).text, 'Hello, Ana');
  t.deepEqual(await running(), running2);
});

test('B21 a byte flipped anywhere in the file never stops, restarts or fails anything', async (t) => {
  const { daemon, text, client, write, kernel, running } = await useReloadable(t);
  const before = await running();
  const outcomes = new Map<string, number>();
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 3) {
    const flipped = Buffer.from(bytes);
    flipped[at] = flipped[at]! ^ (1 << (at % 7));
    writeFileSync(join(daemon.dir, 'config.toml'), flipped);
    const { outcome, problems } = await kernel.reloadConfig({ dryRun: true });
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (outcome !== 'refused') continue;
    t.true(problems.length > 0);
    // Without dry run a refusal is the same refusal.
    t.deepEqual((await kernel.reloadConfig({ dryRun: false })).problems, problems);
  }
  t.true((outcomes.get('refused') ?? 0) > 20, JSON.stringify([...outcomes]));
  t.deepEqual(await running(), before);
  write(text);
  t.is((await kernel.reloadConfig({ dryRun: false })).outcome, 'unchanged');
  t.is((await client.hello({ name: 'Ana' })).text, 'Hello, Ana');
});

test('B22 with --watch a plugin is reloaded when a file of it changes, and one that is broken keeps the old', async (t) => {
  t.timeout(300_000);
  const dir = join(useScratch(t, 'watch'), 'hello');
  cpSync(join(samples, 'hello'), dir, { recursive: true });
  const daemon = await useDaemon(t, { config: `version = 3\n[kernel]\nplugin_dirs = ["${dir}"]\n`, args: ['--watch'] });
  const client = useClient(
    t,
    daemon,
    definitionFromFile('example.hello.v1.Hello', join(dir, 'hello.proto')),
  ) as never as Hello;
  const told = (pattern: RegExp) => eventually(t, `${pattern}`, () => daemon.log.some((line) => pattern.test(line)));
  const greets = (text: string) => eventually(t, text, async () => (await client.hello({ name: 'Ana' })).text === text);
  await told(/plugins are reloaded when their files change/);
  const file = join(dir, 'index.ts');
  const code = readFileSync(file, 'utf8');
  t.is((await client.hello({ name: 'Ana' })).text, 'Hello, Ana');
  // A recursive watcher of Node begins a little after it says so: the file is written until it was seen.
  const writing = setInterval(() => writeFileSync(file, code.replace(', $', ', dear $')), 500);
  t.teardown(() => clearInterval(writing));
  await greets('Hello, dear Ana');
  clearInterval(writing);
  writeFileSync(file, `${code}const x = (;\n`);
  await told(/level=error msg="plugin changed on disk" .*outcome=kept .*index\.ts:\d+/);
  t.is((await client.hello({ name: 'Ana' })).text, 'Hello, dear Ana');
  writeFileSync(file, code);
  await greets('Hello, Ana');
  t.is((await plugins(daemon)).find(({ id }) => id === hello)!.restarts, 0);
});

test('SIGHUP ends the daemon at no moment of its start', async (t) => {
  t.timeout(300_000);
  const daemon = new Daemon(useScratch(t, 'hup'), { config: 'version = 3\n' });
  t.teardown(async () => {
    await daemon.stop();
  });
  const starting = daemon.start();
  let sent = 0;
  // From when the launcher has spoken for it: before, the process is not ours yet.
  const sending = setInterval(() => {
    const [, ignored] = /^SigIgn:\s*(\w+)$/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8')) ?? [];
    const [, caught] = /^SigCgt:\s*(\w+)$/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8')) ?? [];
    if (((BigInt(`0x${ignored}`) | BigInt(`0x${caught}`)) & 1n) === 0n) return;
    process.kill(daemon.pid, 'SIGHUP');
    sent += 1;
  }, 5);
  await starting.finally(() => clearInterval(sending));
  t.true(sent > 3, `${sent} signals`);
  t.is((await trouped(daemon, 'config', 'reload')).stdout, 'nothing has changed\n');
});
