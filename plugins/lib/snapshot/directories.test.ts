import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync as renameInto,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Log } from 'troupe/plugin';
import { mountOn, mountsBelow, unmountAll } from 'troupe/sys';
import { eventually } from '../../../test/helpers/eventually.ts';
import { rootTest } from '../../../test/helpers/privilege.ts';
import { SnapshotDirectories } from './directories.ts';
import { measure } from './measure.ts';
import { unlinkTree } from './unlink-tree.ts';

const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'troupe-directories-'));
test.after.always(() => {
  unmountAll(scratch, 2);
  rmSync(scratch, { recursive: true, force: true });
});

let count = 0;
const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} };
function open(syncRemove = true): { directories: SnapshotDirectories; root: string } {
  const root = join(scratch, `${count++}`);
  const directories = new SnapshotDirectories({ root, syncRemove, log: quiet });
  directories.open(false);
  return { directories, root };
}

test('a directory appears whole or not at all', async (t) => {
  const { directories, root } = open();
  await directories.make('1', (path) => writeFileSync(join(path, 'file'), 'x'));
  t.deepEqual(readdirSync(join(root, 'snapshots', '1')), ['file']);
  await directories.make('1', () => t.fail('made again'));

  const error = await t.throwsAsync(
    directories.make('2', (path) => {
      writeFileSync(join(path, 'half'), '');
      throw new Error('full');
    }),
  );
  t.is(error?.message, 'full');
  t.deepEqual(directories.list(), ['1']);
  t.deepEqual(readdirSync(join(root, 'snapshots')), ['1']);
  await directories.close();
});

test('two that ask for the same id get the same directory', async (t) => {
  const { directories } = open();
  let fills = 0;
  await Promise.all([directories.make('7', () => void fills++), directories.make('7', () => void fills++)]);
  t.is(fills, 1);
  await directories.close();
});

test('ids are decimal numbers and nothing else', async (t) => {
  const { directories } = open();
  for (const id of ['', '0', '-1', '1/..', '../1', '01', '1a', '9'.repeat(20)]) {
    t.throws(() => directories.directory(id), { message: `snapshot id "${id}": invalid argument` });
  }
  await directories.close();
});

rootTest('removal takes mounts away, never crosses one and leaves nothing', async (t) => {
  const { directories, root } = open();
  const outside = join(root, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'precious'), '');
  await directories.make('1', (path) => {
    mkdirSync(join(path, 'fs/a/b/c'), { recursive: true });
    writeFileSync(join(path, 'fs/a/b/c/file'), '');
    symlinkSync(outside, join(path, 'fs/link'));
    mkdirSync(join(path, 'fs/mount'));
  });
  const point = join(directories.directory('1'), 'fs/mount');
  mountOn(point, { type: 'bind', source: outside, options: ['rbind', 'rw'] });
  await directories.remove('1');
  t.deepEqual(mountsBelow(root), []);
  t.deepEqual(readdirSync(join(root, 'snapshots')), []);
  t.deepEqual(readdirSync(join(root, 'trash')), []);
  t.deepEqual(readdirSync(outside), ['precious']);
  await directories.remove('1');
  await directories.close();
});

test('the next start finishes what a crash left', async (t) => {
  const { directories, root } = open();
  await directories.make('1', () => {});
  await directories.close();
  mkdirSync(join(root, 'snapshots/new-2/fs'), { recursive: true });
  mkdirSync(join(root, 'trash/3.00000000/fs/deep'), { recursive: true });
  const next = new SnapshotDirectories({ root, syncRemove: true, log: quiet });
  next.open(true);
  t.true(existsSync(join(root, 'snapshots/new-2')), 'a generation before may still be making it');
  next.open(false);
  t.deepEqual(readdirSync(join(root, 'snapshots')), ['1']);
  await next.remove('1');
  // Nobody is told when the background is done.
  await eventually(t, 'the trash is empty', () => readdirSync(join(root, 'trash')).length === 0);
  t.deepEqual(next.list(), []);
  await next.close();
});

rootTest('what cannot be unlinked now is tried again', async (t) => {
  const root = join(scratch, `${count++}`);
  const point = join(root, 'trash/5.00000000/mounted');
  mkdirSync(point, { recursive: true });
  mountOn(point, { type: 'tmpfs', source: 'tmpfs', options: [] });
  const warned: { readonly message: string; readonly path: unknown }[] = [];
  const log: Log = { ...quiet, warn: (message, fields) => void warned.push({ message, path: fields?.path }) };
  const directories = new SnapshotDirectories({ root, syncRemove: true, log, retryMs: 20 });
  directories.open(false);
  await eventually(t, 'it is tried again, more than once', () => warned.length >= 3);
  t.deepEqual(readdirSync(join(root, 'trash')), ['5.00000000']);
  unmountAll(point);
  await eventually(t, 'the trash is empty', () => readdirSync(join(root, 'trash')).length === 0);
  const failed = { message: 'removed snapshot cannot be unlinked', path: join(root, 'trash/5.00000000') };
  t.deepEqual(
    warned,
    warned.map(() => failed),
  );
  await directories.close();
});

test('all that wait for a sync share the next one', async (t) => {
  const { directories } = open();
  const settled: string[] = [];
  const first = directories.sync().then(() => settled.push('first'));
  const others = Array.from({ length: 8 }, () => directories.sync());
  t.is(new Set(others).size, 1, 'one sync for all that came after the first began');
  await Promise.all([first, ...others]);
  t.deepEqual(settled, ['first']);
  await directories.close();
});

test('measures every inode once', (t) => {
  const root = join(scratch, `${count++}`);
  mkdirSync(join(root, 'a/b'), { recursive: true });
  writeFileSync(join(root, 'a/file'), Buffer.alloc(10_000));
  linkSync(join(root, 'a/file'), join(root, 'a/b/again'));
  symlinkSync('/nowhere', join(root, 'link'));
  const { size, inodes } = measure(root);
  t.is(inodes, 5);
  t.true(size >= 10_000 && size < 100_000, `${size}`);
});

test('walks and unlinks trees deeper than PATH_MAX', (t) => {
  const root = join(scratch, `${count++}`);
  mkdirSync(root);
  const name = 'd'.repeat(200);
  const piece = Array.from({ length: 15 }, () => name).join('/');
  // Built from pieces that are renamed below each other: no path may be longer than 4096 bytes.
  mkdirSync(join(root, 'tree', piece), { recursive: true });
  for (let i = 0; i < 3; i++) {
    mkdirSync(join(root, 'next', piece), { recursive: true });
    renameInto(join(root, 'tree'), join(root, 'next', piece, 'below'));
    renameInto(join(root, 'next'), join(root, 'tree'));
  }
  t.is(measure(join(root, 'tree')).inodes, 1 + 4 * 15 + 3);
  t.true(unlinkTree(root, 'tree'));
  t.deepEqual(readdirSync(root), []);
});

test('an attempt that runs out of time is finished by the next', (t) => {
  const root = join(scratch, `${count++}`);
  for (const name of ['a/b/c', 'a/d', 'e']) mkdirSync(join(root, 'tree', name), { recursive: true });
  mkdirSync(join(root, 'other'));
  t.false(unlinkTree(root, 'tree', 0));
  renameInto(join(root, 'tree/a'), join(root, 'tree+0'));
  t.true(unlinkTree(root, 'tree'));
  t.deepEqual(readdirSync(root), ['other']);
});
