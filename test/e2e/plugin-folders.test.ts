/** Folders of plugins that are no good, each in its own way: the daemon serves on, and the list says what is wrong, and where. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { scaffold } from '../../kernel/cli/new.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { useScratch } from '../helpers/scratch.ts';
import { plugins, trouped, useClient } from '../helpers/trouped.ts';

const samples = fileURLToPath(new URL('../../plugins/samples', import.meta.url));
const code = (start: string, before = '') =>
  `import { definePlugin } from 'troupe/plugin';\n${before}\nexport default definePlugin({ async start(ctx) {\n${start}\n} });\n`;
const fine = code('return { serve: {} };');
const manifest = (name: string, more = '') => `api = 1\nid = "bad.v1.${name}"\n${more}`;
/** They fail at the start, and are not tried again. */
const quick = '[deadlines]\nstart = "3s"\n';

interface Bad {
  readonly toml?: string;
  readonly code?: string;
  /** Of `plugins ls`. FOLDER stands for where it lies. */
  readonly reason: RegExp;
  readonly state?: string;
}

const bad: Record<string, Bad> = {
  'no-manifest': { code: fine, reason: /FOLDER\/plugin\.toml: cannot be opened: no such file/ },
  syntax: { toml: 'api = 1\nid = \n', code: fine, reason: /FOLDER\/plugin\.toml:2:/ },
  'no-id': { toml: 'api = 1\n', code: fine, reason: /FOLDER\/plugin\.toml: id is missing: TYPE\.NAME/ },
  api: {
    toml: manifest('api').replace('1', '2'),
    code: fine,
    reason: /FOLDER\/plugin\.toml:1: written for version 2 of troupe\/plugin, this kernel offers 1/,
  },
  key: {
    toml: manifest('key', 'requiers = []\n'),
    code: fine,
    reason: /FOLDER\/plugin\.toml:3: unknown key requiers \(did you mean "requires"\?\)/,
  },
  requires: {
    toml: manifest('requires', 'requires = ["bad.v1.nobody"]\n'),
    code: fine,
    reason: /bad\.v1\.requires requires bad\.v1\.nobody, which no plugin is/,
  },
  uses: {
    toml: manifest('uses', '[uses]\n"bad.v1.Nobody" = "1"\n'),
    code: fine,
    reason: /bad\.v1\.uses uses bad\.v1\.Nobody, which no plugin serves/,
  },
  'cycle-a': {
    toml: manifest('cycle-a', 'requires = ["bad.v1.cycle-b"]\n'),
    code: fine,
    reason: /bad\.v1\.cycle-a → bad\.v1\.cycle-b → bad\.v1\.cycle-a/,
  },
  'cycle-b': {
    toml: manifest('cycle-b', 'requires = ["bad.v1.cycle-a"]\n'),
    code: fine,
    reason: /requires bad\.v1\.cycle-a, which is left out/,
  },
  duplicate: {
    toml: manifest('duplicate', '[serves."containerd.services.images.v1.Images"]\npublic = true\n'),
    code: fine,
    reason:
      /bad\.v1\.duplicate and io\.containerd\.service\.v1\.images-service both serve containerd\.services\.images\.v1\.Images/,
  },
  config: {
    toml: manifest('config', '[config.n]\ntype = "integer"\ndefault = 1\ndoc = "a number"\n'),
    code: fine,
    reason: /config\.toml:\d+: plugins\."bad\.v1\.config"\.n must be an integer, not "x"/,
  },
  'no-code': { toml: manifest('no-code', quick), reason: /Cannot find module 'FOLDER\/index\.ts'/ },
  'no-export': {
    toml: manifest('no-export', quick),
    code: 'export const a = 1;\n',
    reason: /index\.ts has no default export made by definePlugin/,
  },
  parse: { toml: manifest('parse', quick), code: `${fine}const x = (;\n`, reason: /FOLDER\/index\.ts:6: / },
  'throws-at-import': {
    toml: manifest('throws-at-import', quick),
    code: code('return { serve: {} };', "throw new Error('not on a Monday');"),
    reason: /FOLDER\/index\.ts:2: not on a Monday/,
  },
  'throws-at-start': {
    toml: manifest('throws-at-start', quick),
    code: code("throw new Error('no battery');"),
    reason: /FOLDER\/index\.ts:4: no battery/,
  },
  'never-ready': {
    toml: manifest('never-ready', quick),
    code: code('await new Promise(() => {}); return { serve: {} };'),
    reason: /start deadline: its start\(\) has not returned within 3 s/,
  },
  'loops-at-import': {
    toml: manifest('loops-at-import', quick),
    code: code('return { serve: {} };', 'for (;;);'),
    reason: /load/,
  },
  exits: {
    toml: manifest('exits', quick),
    code: code('process.exit(0);'),
    reason: /ended during start: exited with code 0/,
  },
  'lacks-method': {
    toml: manifest('lacks-method', `${quick}[serves."grpc.health.v1.Health"]\nname = "other"\n`),
    code: code("return { serve: { 'grpc.health.v1.Health': { check: () => ({ status: 1 }) } } };"),
    reason: /service grpc\.health\.v1\.Health does not implement watch/,
  },
  'bad-proto': {
    toml: manifest('bad-proto', `${quick}[serves."bad.v1.Proto"]\nproto = "none.proto"\n`),
    code: code("return { serve: { 'bad.v1.Proto': {} } };"),
    reason: /FOLDER\/none\.proto/,
  },
  skips: {
    toml: manifest('skips'),
    code: code("throw skip('no such device here');", "import { skip } from 'troupe/plugin';"),
    reason: /^no such device here$/,
    state: 'skipped',
  },
};

test('B3 B7 every bad folder is told of, and what is good beside it serves', async (t) => {
  t.timeout(300_000);
  const dir = useScratch(t, 'folders');
  for (const [name, { toml, code: text }] of Object.entries(bad)) {
    mkdirSync(join(dir, name));
    if (toml !== undefined) writeFileSync(join(dir, name, 'plugin.toml'), toml);
    if (text !== undefined) writeFileSync(join(dir, name, 'index.ts'), text);
  }
  cpSync(join(samples, 'hello'), join(dir, 'hello'), { recursive: true });
  for (const type of ['service', 'snapshotter', 'verifier', 'consumer']) scaffold(`my-${type}`, type, dir);
  const missing = join(dir, 'nowhere');
  const daemon = await useDaemon(t, {
    config: `version = 3\n[kernel]\nplugin_dirs = ["${dir}", "${missing}"]\n[plugins."bad.v1.config"]\nn = "x"\n`,
  });

  const listed = await plugins(daemon);
  for (const [name, { reason, state = 'failed' }] of Object.entries(bad)) {
    const folder = join(dir, name);
    const plugin = listed.find((each) => each.folder === folder);
    t.is(plugin?.state, state, `${name}: ${plugin?.reason}`);
    t.regex(plugin?.reason ?? '', new RegExp(reason.source.replace('FOLDER', folder.replaceAll('.', '\\.'))), name);
  }
  t.regex(listed.find((each) => each.folder === missing)?.reason ?? '', /nowhere: ENOENT$/);
  const good = listed.filter(({ id }) => !id.startsWith('bad.') && !id.startsWith('troupe.unreadable.'));
  t.deepEqual(
    good.filter(({ state }) => state !== 'ready' && state !== 'skipped').map(({ id, reason }) => `${id}: ${reason}`),
    [],
  );
  const mine = good
    .filter(({ folder }) => folder.startsWith(`${dir}/my-`))
    .map(({ id }) => id)
    .sort();
  t.deepEqual(mine, [
    'example.my-consumer.v1.my-consumer',
    'example.my-service.v1.my-service',
    'io.containerd.image-verifier.v1.my-verifier',
    'io.containerd.snapshotter.v1.my-snapshotter',
  ]);

  // Clients are told the same by Introspection.
  const { stdout } = await daemon.ctr(['plugins', 'ls', '-d', 'id==throws-at-start']);
  t.regex(stdout, /Error:[\s\S]*no battery/);
  t.is((await daemon.ctr(['images', 'ls'])).code, 0);

  // What a new one serves is there for clients at once; what is mended comes with a reload of the config, and needs no restart.
  interface Client {
    greet(request: object): Promise<{ text: string }>;
  }
  const definition = definitionFromFile('example.my_service.v1.MyService', join(dir, 'my-service/my-service.proto'));
  const client = useClient(t, daemon, definition) as never as Client;
  t.is((await client.greet({ name: 'Ana' })).text, 'Hello, Ana');
  writeFileSync(join(dir, 'key/plugin.toml'), manifest('key'));
  const { code: status, stdout: text, stderr } = await trouped(daemon, 'config', 'reload');
  t.is(status, 0, stderr);
  t.is(text, 'reloaded\n  start     bad.v1.key\n');
  t.is((await plugins(daemon)).find(({ id }) => id === 'bad.v1.key')?.state, 'ready');
});

test('B30 a plugin that answers what cannot be sent fails that call, and no other', async (t) => {
  t.timeout(300_000);
  const dir = join(useScratch(t, 'garbage'), 'hello');
  cpSync(join(samples, 'hello'), dir, { recursive: true });
  writeFileSync(
    join(dir, 'index.ts'),
    code(
      `return { serve: { 'example.hello.v1.Hello': {
         hello({ name }) {
           switch (name) {
             case 'nothing': return undefined;
             case 'text': return 'text';
             case 'wrong': return { text: Symbol('x'), times: 'many' };
             case 'getter': return { get text() { throw new Error('poisoned'); }, times: 1 };
             case 'loop': { const loop = { text: 'a' }; loop.text = loop; return loop; }
             case 'function': return () => {};
             case 'throws nothing': throw undefined;
             case 'throws text': throw 'text';
             case 'throws a proxy': throw new Proxy({}, { get() { throw new Error('no'); } });
             case 'rejects': return Promise.reject({ toString() { throw new Error('no'); } });
             default: return { text: name, times: 1 };
           }
         },
         count: () => 'no stream',
       } } };`,
    ),
  );
  const daemon = await useDaemon(t, { config: `version = 3\n[kernel]\nplugin_dirs = ["${dir}"]\n` });
  interface Client {
    hello(request: { name: string }, options?: object): Promise<{ text: string }>;
    count(request: { to: number }, options?: object): AsyncIterable<unknown>;
  }
  const definition = definitionFromFile('example.hello.v1.Hello', join(dir, 'hello.proto'));
  const client = useClient(t, daemon, definition) as never as Client;
  const timeoutMs = 30_000;
  for (const name of [
    'nothing',
    'text',
    'wrong',
    'getter',
    'loop',
    'function',
    'throws nothing',
    'throws text',
    'throws a proxy',
    'rejects',
  ]) {
    // Whatever it is taken for, it is answered, and within its time.
    const outcome = await client.hello({ name }, { timeoutMs }).then(
      () => 'answered',
      (error: { code: string }) => error.code,
    );
    t.not(outcome, 'DeadlineExceeded', name);
    t.is((await client.hello({ name: 'Ana' })).text, 'Ana', `after ${name}`);
  }
  const stream = client.count({ to: 1 }, { timeoutMs })[Symbol.asyncIterator]();
  const { code: failed } = (await t.throwsAsync(async () => stream.next())) as Error & { code: string };
  t.not(failed, 'DeadlineExceeded');
  const [plugin] = (await plugins(daemon)).filter(({ id }) => id === 'example.hello.v1.hello');
  t.deepEqual([plugin!.state, plugin!.restarts], ['ready', 0]);
});

test('the plugin of the README is one', async (t) => {
  t.timeout(300_000);
  const readme = readFileSync(fileURLToPath(new URL('../../README.md', import.meta.url)), 'utf8');
  const dir = useScratch(t, 'readme');
  for (const [, name, text] of readme.matchAll(/```(?:toml|ts)\n(?:#|\/\/) \/opt\/hello\/(\S+)\n([\s\S]*?)```/g))
    writeFileSync(join(dir, name!), text!);
  const daemon = await useDaemon(t, { config: `version = 3\n[kernel]\nplugin_dirs = ["${dir}"]\n` });
  const reloaded = await trouped(daemon, 'plugins', 'reload', '--force', 'example.hello.v1.hello');
  t.regex(reloaded.stdout, /^example\.hello\.v1\.hello: reloaded \(generation 2, /);
});
