import { constants, fstatSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { memoryDirectory } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = memoryDirectory('sys-extent', 'size=64m');

const open = (name: string): number =>
  sys.openat(sys.AT_FDCWD, join(root, name), constants.O_CREAT | constants.O_RDWR, 0o600);

test('fallocate reserves, punchHole frees and zeroes, the size stays', (t) => {
  const fd = open('holes');
  sys.fallocate(fd, 0, 0, 1 << 20);
  t.is(fstatSync(fd).size, 1 << 20);
  t.is(fstatSync(fd).blocks, 2048);
  writeSync(fd, Buffer.alloc(1 << 20, 1));
  sys.punchHole(fd, 4096, (1 << 20) - 8192);
  t.is(fstatSync(fd).size, 1 << 20);
  t.is(fstatSync(fd).blocks, 16);
  const bytes = Buffer.alloc(2);
  readSync(fd, bytes, 0, 2, 4095);
  t.deepEqual(bytes, Buffer.from([1, 0]));
  sys.fallocate(fd, sys.FALLOC_FL_KEEP_SIZE, 1 << 21, 4096);
  t.is(fstatSync(fd).size, 1 << 20);
  t.throws(() => sys.fallocate(fd, 0, -1, 5), { code: 'EINVAL' });
  t.throws(() => sys.fallocate(fd, 0, 0, 2 ** 40), { code: 'ENOSPC' });
  sys.close(fd);
});

test('a hole beyond 4 GiB', (t) => {
  const fd = open('sparse');
  writeSync(fd, 'end', 5 * 2 ** 30);
  t.true(fstatSync(fd).blocks > 0);
  sys.punchHole(fd, 5 * 2 ** 30, 4096);
  t.is(fstatSync(fd).blocks, 0);
  t.is(fstatSync(fd).size, 5 * 2 ** 30 + 3);
  sys.close(fd);
});

test('copyFileRange copies what it says, from and to where it says', (t) => {
  writeFileSync(join(root, 'source'), 'abcdefghij');
  const [from, to] = [open('source'), open('copy')];
  t.is(sys.copyFileRange(from, 2, to, 3, 4), 4);
  t.is(readFileSync(join(root, 'copy'), 'latin1'), '\0\0\0cdef');
  t.is(sys.copyFileRange(from, 8, to, 0, 100), 2, 'as much as there is');
  t.is(sys.copyFileRange(from, 10, to, 0, 100), 0, 'the end');
  t.throws(() => sys.copyFileRange(from, 0, -1, 0, 1), { code: 'EBADF' });
  sys.close(from);
  sys.close(to);
});

test('cloneFile says no where the file system cannot', (t) => {
  const [from, to] = [open('source2'), open('clone')];
  t.false(sys.cloneFile(from, to));
  sys.close(from);
  sys.close(to);
});
