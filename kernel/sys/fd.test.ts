import { constants, fstatSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import * as sys from './index.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-fd-'));
test.after.always(() => rmSync(root, { recursive: true }));

test('dup is another descriptor of the same file, closed on exec, above the lowest', (t) => {
  const fd = sys.openat(sys.AT_FDCWD, join(root, 'dup'), constants.O_CREAT | constants.O_RDWR, 0o600);
  const other = sys.dup(fd, 50);
  t.true(other >= 50);
  t.is(fstatSync(other).ino, fstatSync(fd).ino);
  t.true(sys.isCloseOnExec(other));
  sys.setCloseOnExec(other, false);
  t.false(sys.isCloseOnExec(other));
  sys.close(fd);
  writeFileSync(other, 'still open');
  sys.close(other);
  t.is(readFileSync(join(root, 'dup'), 'utf8'), 'still open');
  t.throws(() => sys.close(other), { code: 'EBADF' });
  t.throws(() => sys.dup(-1), { code: 'EBADF' });
});

test('flock is held by one open file at a time', (t) => {
  const open = (): number => sys.openat(sys.AT_FDCWD, join(root, 'lock'), constants.O_CREAT | constants.O_RDWR, 0o600);
  const [one, two] = [open(), open()];
  t.true(sys.flock(one, sys.LOCK_EX | sys.LOCK_NB));
  t.false(sys.flock(two, sys.LOCK_EX | sys.LOCK_NB));
  t.false(sys.flock(two, sys.LOCK_SH | sys.LOCK_NB));
  const same = sys.dup(one);
  sys.close(one);
  t.false(sys.flock(two, sys.LOCK_EX | sys.LOCK_NB), 'a duplicate holds it on');
  sys.close(same);
  t.true(sys.flock(two, sys.LOCK_EX | sys.LOCK_NB));
  sys.flock(two, sys.LOCK_UN);
  sys.close(two);
  t.throws(() => sys.flock(two, sys.LOCK_EX, '/the/lock'), { code: 'EBADF', message: /the\/lock/ });
});

test('fdPath names what is held, and withFd closes on the way out', (t) => {
  const dir = sys.openat(sys.AT_FDCWD, root, sys.O_PATH | constants.O_DIRECTORY);
  writeFileSync(sys.fdPath(dir, 'named'), 'x');
  t.is(readFileSync(join(root, 'named'), 'utf8'), 'x');
  t.throws(
    () =>
      sys.withFd(dir, () => {
        throw new Error('on the way');
      }),
    { message: 'on the way' },
  );
  t.throws(() => sys.close(dir), { code: 'EBADF' });
});
