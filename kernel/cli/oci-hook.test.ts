import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { fillIn, readContainer } from './oci-hook.ts';

const bytes = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));

const container = {
  id: 'web',
  pid: 42,
  status: 'created',
  bundle: '/b',
  rootfs: '/b/rootfs',
  annotations: { 'a.b/c': 'x y', empty: '', braces: '{{id' },
};

test('every template of a hook, with Go’s spacing, dots and quotes', (t) => {
  const table: [string, string][] = [
    ['plain', 'plain'],
    ['{{id}}', 'web'],
    ['{{ id }}-{{pid}}', 'web-42'],
    ['{{.ID}} {{.id}}', 'web web'],
    ['{{status}}:{{bundle}}:{{rootfs}}', 'created:/b:/b/rootfs'],
    ['{{annotation "a.b/c"}}', 'x y'],
    ['{{ annotation `a.b/c` }}', 'x y'],
    ['{{annotation "a\\u002eb/c"}}', 'x y'],
    ['[{{annotation "absent"}}{{annotation "__proto__"}}{{annotation "empty"}}]', '[]'],
    ['a  {{- id -}}  b', 'a  {{- id -}}  b'.replace('  {{- id -}}  ', 'web')],
    ['{{annotation "braces"}}', '{{id'],
    ['}} {', '}} {'],
  ];
  for (const [template, expected] of table) t.is(fillIn(template, container), expected, template);
});

test('templates that mean nothing here are refused by name', (t) => {
  for (const template of ['{{}}', '{{ident}}', '{{annotation}}', '{{annotation a}}', '{{if id}}', '{{constructor}}']) {
    t.throws(() => fillIn(template, container), { message: /is none of \{\{id\}\}/ }, template);
  }
  t.throws(() => fillIn('x {{id', container), { message: /does not close it/ });
});

test('the container is read from the state and the bundle', (t) => {
  const read = (spec: unknown) => () => bytes(spec);
  const state = bytes({
    ociVersion: '1.0.2',
    id: 'web',
    status: 'created',
    pid: 42,
    bundle: '/b',
    annotations: { s: 'state' },
  });
  t.deepEqual(readContainer(state, read({ root: { path: 'rootfs' }, annotations: { k: 'v' } })), {
    id: 'web',
    pid: 42,
    status: 'created',
    bundle: '/b',
    rootfs: '/b/rootfs',
    annotations: { k: 'v', s: 'state' },
  });
  t.is(readContainer(state, read({ root: { path: '/abs' } })).rootfs, '/abs');
  t.throws(() => readContainer(bytes('nonsense'), read({})), {
    message: 'oci-hook: the state on stdin is not a JSON object',
  });
  t.throws(() => readContainer(bytes('[]'), read({})), {
    message: 'oci-hook: the state on stdin is not a JSON object',
  });
  t.throws(() => readContainer(bytes({ id: 'x' }), read({})), { message: /no id or no bundle/ });
  t.throws(() => readContainer(state, read('x')), { message: 'oci-hook: /b/config.json is not a JSON object' });
});

test('the command runs with its arguments and environment filled in, and its exit code is ours', (t) => {
  const bundle = mkdtempSync(join(tmpdir(), 'bundle-'));
  t.teardown(() => rmSync(bundle, { recursive: true }));
  writeFileSync(join(bundle, 'config.json'), JSON.stringify({ root: { path: 'rootfs' } }));
  const program = `import { ociHook } from ${JSON.stringify(join(import.meta.dirname, 'oci-hook.ts'))};
    process.exitCode = await ociHook(process.argv.slice(1)).catch((error) => { console.error(error.message); return 1; });`;
  const run = (args: string[], env: Record<string, string> = {}) =>
    spawnSync(process.execPath, ['--input-type=module', '-e', program, '--', ...args], {
      input: JSON.stringify({ id: 'web', pid: 7, bundle }),
      env: { PATH: process.env.PATH ?? '', ...env },
      encoding: 'utf8',
    });
  const told = run(['sh', '-c', 'echo "$1 $A $B"; exit 3', 'sh', '{{id}}:{{rootfs}}'], {
    A: 'pid={{pid}}',
    B: '{{not ours',
  });
  t.is(told.stdout, `web:${bundle}/rootfs pid=7 {{not ours\n`);
  t.is(told.status, 3);
  t.is(run(['sh', '-c', 'kill -TERM $$']).status, 143);
  const absent = run(['/nonexistent/hook']);
  t.is(absent.status, 1);
  t.is(absent.stderr, 'oci-hook: /nonexistent/hook: ENOENT\n');
});
