/** An image is used for as long as it is what its sources would be, and code in it knows its place. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { checkout } from './find.ts';

/** A checkout with images of its own. */
function copied(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-prebuilt-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  for (const name of ['kernel', 'plugins', 'proto', 'package.json', 'package-lock.json'])
    cpSync(join(checkout, name), join(dir, name), { recursive: true, preserveTimestamps: true });
  symlinkSync(join(checkout, 'node_modules'), join(dir, 'node_modules'));
  make(dir);
  return dir;
}

const make = (dir: string) => execFileSync(process.execPath, [join(dir, 'kernel/prebuilt/make.ts')], { cwd: dir });

/** What a fresh process is answered: the names of image files, or `sources`. */
function found(dir: string, ...asked: string[][]): string[] {
  const script = `import { prebuilt } from ${JSON.stringify(join(dir, 'kernel/prebuilt/find.ts'))};
    const asked = JSON.parse(process.argv[1]);
    console.log(JSON.stringify(asked.map((dirs) => prebuilt(dirs)?.pathname.split('/').at(-1) ?? 'sources')));`;
  const args = [
    '--input-type=module',
    '-e',
    script,
    JSON.stringify(asked.map((dirs) => dirs.map((each) => join(dir, each)))),
  ];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as string[];
}

test('images: the smallest that has what is asked for, and none once a source has changed', (t) => {
  t.timeout(60_000);
  const dir = copied(t);
  const asked = [
    [],
    ['plugins/images'],
    ['plugins/images', 'plugins/leases'],
    ['plugins/images', 'plugins/records'],
    ['plugins/samples/hello'],
    ['kernel/front'],
  ];
  t.deepEqual(found(dir, ...asked), [
    'kernel.cjs',
    'images.cjs',
    'lean-services.cjs',
    'sources',
    'sources',
    'front.cjs',
  ]);

  const store = join(dir, 'plugins/images/store.ts');
  writeFileSync(store, `${readFileSync(store, 'utf8')}\n`);
  t.deepEqual(found(dir, ...asked), ['kernel.cjs', 'sources', 'sources', 'sources', 'sources', 'front.cjs']);
  make(dir);
  t.deepEqual(found(dir, ['plugins/images']), ['images.cjs']);

  utimesSync(join(dir, 'kernel/sdk/host.ts'), 1, 1);
  t.deepEqual(found(dir, ['plugins/images'], ['kernel/front']), ['sources', 'sources']);
});

test('what is current is not made again, and an image says the places of its sources', (t) => {
  t.timeout(60_000);
  const dir = copied(t);
  const before = readdirSync(join(dir, '.cache/prebuilt')).map((name) =>
    readFileSync(join(dir, '.cache/prebuilt', name), 'utf8'),
  );
  writeFileSync(join(dir, '.cache/prebuilt/mark'), '');
  make(dir);
  t.true(readdirSync(join(dir, '.cache/prebuilt')).includes('mark'));
  t.true(before.some((text) => text.includes('../../plugins/records/house.ts')));
  t.false(
    before.some((text) => text.includes(dir)),
    'no absolute path: a checkout may move',
  );
});

test('the text of an image has a byte for each character in V8', (t) => {
  const dir = join(copied(t), '.cache/prebuilt');
  for (const name of readdirSync(dir).filter((each) => each.endsWith('.js')))
    t.deepEqual(readFileSync(join(dir, name), 'utf8').match(/.*[^\0-\xff].*/g) ?? [], [], name);
});

test('trouped runs from its image and from its sources', (t) => {
  t.timeout(60_000);
  const dir = copied(t);
  const version = () =>
    execFileSync(join(dir, 'kernel/trouped'), ['--version'], {
      encoding: 'utf8',
      env: { ...process.env, NODE_COMPILE_CACHE: '' },
    });
  const fromImage = version();
  rmSync(join(dir, '.cache'), { recursive: true });
  t.is(version(), fromImage);
});

test('what a rehearsal has compiled is taken by V8, and a rehearsal is held once', (t) => {
  t.timeout(120_000);
  const dir = copied(t);
  const images = join(dir, '.cache/prebuilt');
  const rehearse = () => execFileSync(process.execPath, [join(dir, 'kernel/prebuilt/rehearse.ts')], { cwd: dir });
  rehearse();
  // As the daemon is started: with other flags V8 refuses all of it.
  const [, flags] = /^exec "\$node" (.*) "\$main"/m.exec(readFileSync(join(dir, 'kernel/trouped'), 'utf8'))!;
  const script = `import { existsSync, readdirSync, readFileSync } from 'node:fs';
    import { Script } from 'node:vm';
    import { setFlags } from ${JSON.stringify(join(dir, 'kernel/flags.ts'))};
    setFlags();
    for (const name of readdirSync('.').filter((each) => existsSync(each.replace(/js$/, 'code')) && each.endsWith('js'))) {
      const cachedData = readFileSync(name.replace('.js', '.code'));
      console.log(name, new Script(readFileSync(name, 'utf8'), { cachedData }).cachedDataRejected ? 'refused' : 'taken');
    }`;
  const args = [...flags!.split(' '), '--input-type=module', '-e', script];
  const said = execFileSync(process.execPath, args, { cwd: images, encoding: 'utf8' });
  for (const name of ['kernel', 'records', 'lean-services', 'pool-layer', 'pool-snapshot'])
    t.regex(said, new RegExp(`^${name}.js taken$`, 'm'));
  t.notRegex(said, /refused/);
  const times = () => readdirSync(images).map((name) => [name, statSync(join(images, name)).mtimeMs]);
  const before = times();
  rehearse();
  t.deepEqual(times(), before);
});
