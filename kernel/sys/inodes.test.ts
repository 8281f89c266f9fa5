import {
  constants,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import * as sys from './index.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-inodes-'));
test.after.always(() => rmSync(root, { recursive: true }));

const open = (path: string): number => sys.openat(sys.AT_FDCWD, path, constants.O_RDONLY);
const sorted = (names: readonly Buffer[]): string[] => names.map((name) => name.toString('latin1')).sort();

function namesOf(fd: number): Buffer[] {
  const names: Buffer[] = [];
  sys.eachInode(fd, ({ name }) => names.push(name));
  return names;
}

test('the names are those of readdir: bytes in no encoding, dots, 255 bytes, and more than one call takes', (t) => {
  const directory = join(root, 'many');
  mkdirSync(directory);
  const names = [Buffer.from([0x66, 0xff, 0xfe]), '...', '.hidden', '..x', '.a', 'x'.repeat(255)];
  for (let i = 0; i < 5000; i++) names.push(`${i}-${'y'.repeat(i % 200)}`);
  for (const name of names) writeFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(name)]), '');
  const fd = open(directory);
  const read = namesOf(fd);
  t.is(read.length, names.length);
  t.deepEqual(sorted(read), sorted(readdirSync(directory, { encoding: 'buffer' })));
  t.deepEqual(namesOf(fd), [], 'from the position on');
  sys.close(fd);
});

test('each is what lstat says of it, links themselves and not what they lead to', (t) => {
  const directory = join(root, 'kinds');
  mkdirSync(join(directory, 'below'), { recursive: true });
  writeFileSync(join(directory, 'large'), Buffer.alloc(3_000_000, 1));
  writeFileSync(join(directory, 'sparse'), '');
  linkSync(join(directory, 'large'), join(directory, 'second'));
  symlinkSync('below', join(directory, 'link'));
  symlinkSync('nowhere', join(directory, 'dangling'));
  const fd = open(directory);
  let seen = 0;
  sys.eachInode(fd, (inode) => {
    seen++;
    const expected = lstatSync(join(directory, inode.name.toString()), { bigint: true });
    const { isDirectory, nlink, blocks, ino, dev } = inode;
    const status = sys.fstatat(fd, inode.name);
    t.deepEqual(
      { isDirectory, nlink, blocks, ino, dev },
      {
        isDirectory: expected.isDirectory(),
        nlink: Number(expected.nlink),
        blocks: Number(expected.blocks),
        ino: expected.ino,
        dev: status.dev,
      },
    );
  });
  t.is(seen, 6);
  sys.close(fd);
});

test('what goes away meanwhile is not visited', (t) => {
  const directory = join(root, 'going');
  mkdirSync(directory);
  for (let i = 0; i < 100; i++) writeFileSync(join(directory, `${i}`), '');
  const fd = open(directory);
  let visited = 0;
  sys.eachInode(fd, ({ name }) => {
    visited++;
    for (const other of readdirSync(directory)) if (other !== name.toString()) unlinkSync(join(directory, other));
  });
  t.is(visited, 1);
  sys.close(fd);
});

test('an empty directory, a file, a directory that is gone', (t) => {
  const directory = join(root, 'empty');
  mkdirSync(directory);
  const fd = open(directory);
  t.deepEqual(namesOf(fd), []);
  rmdirSync(directory);
  t.throws(() => namesOf(fd), { code: 'ENOENT' });
  sys.close(fd);
  writeFileSync(join(root, 'file'), '');
  const file = open(join(root, 'file'));
  t.throws(() => namesOf(file), { code: 'ENOTDIR', message: /getdents64/ });
  sys.close(file);
});
