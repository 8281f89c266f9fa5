/** Who may import whom. ARCHITECTURE.md says why; this says no. */
import test from 'ava';
import { isTest, type Source, sources } from './sources.ts';

const all = sources().filter((source) => !isTest(source.path));

/** `file → import` for every import that a rule forbids. */
function breaches(rule: (source: Source, target: string, typeOnly: boolean) => boolean): string[] {
  return all.flatMap((source) =>
    source.imports
      .filter(({ target, typeOnly }) => rule(source, target, typeOnly))
      .map(({ target }) => `${source.path} → ${target}`),
  );
}

const within = (path: string, folder: string) => path.startsWith(`${folder}/`);
const names = (target: string, library: string) => target === library || target.startsWith(`${library}/`);

test('the kernel never imports a plugin', (t) => {
  t.deepEqual(
    breaches((source, target) => within(source.path, 'kernel') && within(target, 'plugins')),
    [],
  );
});

test('a plugin imports the SDK, system calls, contracts, plugins/lib, its own folder, and libraries', (t) => {
  t.deepEqual(
    breaches((source, target) => {
      if (!within(source.path, 'plugins')) return false;
      if (within(target, 'kernel') || (within(target, 'proto') && target !== 'proto/message.ts')) return true;
      if (!within(target, 'plugins')) return false;
      const [, folder] = source.path.split('/');
      return !within(target, `plugins/${folder}`) && !within(target, 'plugins/lib');
    }),
    [],
  );
});

for (const [library, folder] of [
  ['msgpackr', 'kernel/bus'],
  ['@grpc/grpc-js', 'kernel/front'],
  ['koffi', 'kernel/sys'],
  ['smol-toml', 'kernel/config'],
  ['esbuild', 'kernel/prebuilt'],
] as const) {
  test(`only ${folder} imports ${library}`, (t) => {
    t.deepEqual(
      breaches((source, target) => names(target, library) && !within(source.path, folder)),
      [],
    );
  });
}

test('only the supervisor makes workers; plugins have pools', (t) => {
  t.deepEqual(
    all
      .filter(
        (source) =>
          /new Worker\(/.test(source.text) &&
          !within(source.path, 'kernel/supervisor') &&
          !within(source.path, 'plugins'),
      )
      .map((source) => source.path),
    [],
  );
});

test('a store knows nothing of messages', (t) => {
  t.deepEqual(
    breaches(
      (source, target, typeOnly) =>
        source.path.endsWith('/store.ts') &&
        (within(target, 'kernel/bus') ||
          (names(target, 'troupe/proto') && !typeOnly && /services\//.test(target) && /Definition/.test(source.text))),
    ),
    [],
  );
});

test('nothing imports tests', (t) => {
  t.deepEqual(
    breaches((_source, target) => within(target, 'test') || target.endsWith('.test.ts')),
    [],
  );
});
