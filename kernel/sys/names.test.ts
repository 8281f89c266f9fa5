import { constants, mkdirSync, mkdtempSync, readdirSync, rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import * as sys from './index.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-names-'));
test.after.always(() => rmSync(root, { recursive: true }));

const open = (path: string): number => sys.openat(sys.AT_FDCWD, path, constants.O_RDONLY);
const sorted = (names: readonly Buffer[]): string[] => names.map((name) => name.toString('latin1')).sort();

test('the names are those of readdir: bytes in no encoding, dots, 255 bytes, and more than one call takes', (t) => {
  const directory = join(root, 'many');
  mkdirSync(directory);
  const names = [Buffer.from([0x66, 0xff, 0xfe]), '...', '.hidden', '..x', '.a', 'x'.repeat(255)];
  for (let i = 0; i < 5000; i++) names.push(`${i}-${'y'.repeat(i % 200)}`);
  for (const name of names) writeFileSync(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(name)]), '');
  const fd = open(directory);
  const read = sys.readNames(fd);
  t.is(read.length, names.length);
  t.deepEqual(sorted(read), sorted(readdirSync(directory, { encoding: 'buffer' })));
  t.deepEqual(sys.readNames(fd), [], 'from the position on');
  sys.close(fd);
});

test('an empty directory, a file, a directory that is gone', (t) => {
  const directory = join(root, 'empty');
  mkdirSync(directory);
  const fd = open(directory);
  t.deepEqual(sys.readNames(fd), []);
  rmdirSync(directory);
  t.throws(() => sys.readNames(fd), { code: 'ENOENT' });
  sys.close(fd);
  writeFileSync(join(root, 'file'), '');
  const file = open(join(root, 'file'));
  t.throws(() => sys.readNames(file), { code: 'ENOTDIR', message: /getdents64/ });
  sys.close(file);
});
