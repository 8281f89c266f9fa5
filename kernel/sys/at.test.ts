import { constants, fstatSync, ftruncateSync, lstatSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { memoryDirectory, rootTest } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = memoryDirectory('sys-at', 'size=16m');
const top = sys.openat(sys.AT_FDCWD, root, sys.O_PATH | constants.O_DIRECTORY);
test.after.always(() => {
  sys.close(top);
});

/** A directory of the test's own below `root`, as a descriptor. */
function room(name: string): number {
  sys.mkdirat(top, name, 0o755);
  return sys.openat(top, name, constants.O_RDONLY | constants.O_DIRECTORY);
}

const code = (act: () => unknown): string => {
  try {
    act();
    return 'none';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};

test('whatever is opened closes on exec', (t) => {
  for (const fd of [sys.openat(top, '.', constants.O_RDONLY), sys.openat2(top, '.', constants.O_RDONLY, 0)]) {
    t.true(sys.isCloseOnExec(fd));
    sys.close(fd);
  }
});

test('openat2 with RESOLVE_IN_ROOT keeps links and dots inside', (t) => {
  const dir = room('jail');
  sys.symlinkat('/etc/passwd', dir, 'absolute');
  sys.symlinkat('../../../../etc/passwd', dir, 'relative');
  const resolve = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS;
  t.is(
    code(() => sys.openat2(dir, 'absolute', constants.O_RDONLY, resolve)),
    'ENOENT',
  );
  t.is(
    code(() => sys.openat2(dir, 'relative', constants.O_RDONLY, resolve)),
    'ENOENT',
  );
  sys.mkdirat(dir, 'etc', 0o755);
  const fd = sys.openat2(dir, '/../etc/passwd', constants.O_WRONLY | constants.O_CREAT, resolve, 0o600);
  writeFileSync(fd, 'inside');
  sys.close(fd);
  const read = sys.openat2(dir, 'absolute', constants.O_RDONLY, resolve);
  t.is(readFileSync(read, 'utf8'), 'inside');
  sys.close(read);
  t.is(
    code(() => sys.openat2(dir, 'absolute', constants.O_RDONLY, sys.RESOLVE_BENEATH)),
    'EXDEV',
  );
  t.is(
    code(() => sys.openat2(dir, 'absolute', constants.O_RDONLY, sys.RESOLVE_NO_SYMLINKS)),
    'ELOOP',
  );
  t.is(
    code(() => sys.openat2(sys.AT_FDCWD, `/proc/self/fd/${dir}`, constants.O_RDONLY, sys.RESOLVE_NO_MAGICLINKS)),
    'ELOOP',
  );
  t.is(
    code(() => sys.openat2(dir, 'etc', constants.O_RDONLY, 0, 0o644)),
    'EINVAL',
    'a mode without O_CREAT',
  );
  sys.close(dir);
});

test('names are bytes', (t) => {
  const dir = room('bytes');
  const name = Buffer.from([0x66, 0xff, 0x0a, 0x20]);
  sys.mkdirat(dir, name, 0o700);
  sys.symlinkat(Buffer.from([0xfe, 0x2f]), dir, 'link');
  t.deepEqual(sys.readlinkat(dir, 'link'), Buffer.from([0xfe, 0x2f]));
  t.is(sys.fstatat(dir, name).kind, 'directory');
  sys.renameat2(dir, name, dir, Buffer.from([0x80]));
  t.is(
    code(() => sys.fstatat(dir, name)),
    'ENOENT',
  );
  sys.unlinkat(dir, Buffer.from([0x80]), sys.AT_REMOVEDIR);
  sys.close(dir);
});

test('readlinkat reads links of any length', (t) => {
  const dir = room('long');
  for (const length of [255, 256, 257, 4095]) {
    const target = 'x'.repeat(length);
    sys.symlinkat(target, dir, `l${length}`);
    t.is(sys.readlinkat(dir, `l${length}`).toString(), target);
  }
  sys.close(dir);
});

rootTest('mknodat makes devices, whiteouts and pipes', (t) => {
  const dir = room('nodes');
  sys.mknodat(dir, 'null', constants.S_IFCHR | 0o666, sys.makedev(1, 3));
  sys.mknodat(dir, 'whiteout', constants.S_IFCHR, sys.makedev(0, 0));
  sys.mknodat(dir, 'big', constants.S_IFBLK | 0o600, sys.makedev(4095, 1048575));
  sys.mkfifo(sys.fdPath(dir, 'pipe'), 0o600);
  t.is(sys.fstatat(dir, 'null').rdev, lstatSync('/dev/null').rdev);
  t.is(sys.fstatat(dir, 'whiteout').rdev, 0);
  const { rdev } = sys.fstatat(dir, 'big');
  t.deepEqual([sys.major(rdev), sys.minor(rdev)], [4095, 1048575]);
  t.is(sys.fstatat(dir, 'big').kind, 'block');
  t.is(sys.fstatat(dir, 'pipe').kind, 'fifo');
  sys.close(dir);
});

test('linkat, unlinkat and renameat2 with their flags', (t) => {
  const dir = room('links');
  sys.close(sys.openat(dir, 'a', constants.O_CREAT | constants.O_WRONLY, 0o600));
  sys.linkat(dir, 'a', dir, 'b');
  t.is(sys.fstatat(dir, 'a').ino, sys.fstatat(dir, 'b').ino);
  t.is(sys.fstatat(dir, 'a').nlink, 2);
  sys.symlinkat('a', dir, 'l');
  sys.linkat(dir, 'l', dir, 'l2');
  t.is(sys.fstatat(dir, 'l2').kind, 'symlink', 'the link itself is linked');
  sys.linkat(dir, 'l', dir, 'a2', sys.AT_SYMLINK_FOLLOW);
  t.is(sys.fstatat(dir, 'a2').kind, 'file');
  t.is(
    code(() => sys.renameat2(dir, 'a', dir, 'l', sys.RENAME_NOREPLACE)),
    'EEXIST',
  );
  sys.renameat2(dir, 'a', dir, 'l', sys.RENAME_EXCHANGE);
  t.is(sys.fstatat(dir, 'a').kind, 'symlink');
  t.is(sys.fstatat(dir, 'l').kind, 'file');
  sys.renameat2(dir, 'l', dir, 'b2', sys.RENAME_WHITEOUT);
  t.is(sys.fstatat(dir, 'l').kind, 'character');
  sys.mkdirat(dir, 'd', 0o700);
  t.is(
    code(() => sys.unlinkat(dir, 'd')),
    'EISDIR',
  );
  sys.unlinkat(dir, 'd', sys.AT_REMOVEDIR);
  sys.unlinkat(dir, 'a');
  t.is(
    code(() => sys.fstatat(dir, 'd')),
    'ENOENT',
  );
  t.is(
    code(() => sys.fstatat(dir, 'a')),
    'ENOENT',
  );
  sys.close(dir);
});

test('the try forms answer what was expected and throw the rest', (t) => {
  const dir = room('try');
  t.true(sys.tryMkdirat(dir, 'd', 0o700));
  t.false(sys.tryMkdirat(dir, 'd', 0o700));
  t.is(
    code(() => sys.tryMkdirat(dir, 'absent/d', 0o700)),
    'ENOENT',
  );
  t.false(sys.tryUnlinkat(dir, 'absent'));
  t.is(
    code(() => sys.tryUnlinkat(dir, 'd')),
    'EISDIR',
  );
  t.true(sys.tryUnlinkat(dir, 'd', sys.AT_REMOVEDIR));
  t.is(sys.tryOpenat2(dir, 'absent', constants.O_RDONLY, 0), undefined);
  t.is(
    code(() => sys.openat2(dir, 'absent', constants.O_RDONLY, 0)),
    'ENOENT',
  );
  t.is(
    code(() => sys.tryOpenat2(dir, '.', constants.O_WRONLY, 0)),
    'EISDIR',
  );
  sys.close(dir);
});

rootTest('fchownat changes the link, not what it points to, and keeps what is -1', (t) => {
  const dir = room('own');
  sys.close(sys.openat(dir, 'file', constants.O_CREAT | constants.O_WRONLY, 0o600));
  sys.symlinkat('file', dir, 'link');
  sys.fchownat(dir, 'link', 4294967294, 12);
  t.like(sys.fstatat(dir, 'link'), { uid: 4294967294, gid: 12 });
  t.like(sys.fstatat(dir, 'file'), { uid: 0, gid: 0 });
  sys.fchownat(dir, 'link', -1, 13);
  t.like(sys.fstatat(dir, 'link'), { uid: 4294967294, gid: 13 });
  sys.fchownat(dir, 'link', 7, -1, 0);
  t.like(sys.fstatat(dir, 'file'), { uid: 7, gid: 0 });
  sys.close(dir);
});

rootTest('fchmodat sets all twelve bits, of directories and devices too, and never through a link', (t) => {
  const dir = room('mode');
  sys.close(sys.openat(dir, 'file', constants.O_CREAT | constants.O_WRONLY, 0o600));
  sys.mknodat(dir, 'device', constants.S_IFCHR | 0o600, sys.makedev(1, 3));
  sys.mkdirat(dir, 'd', 0o700);
  for (const name of ['file', 'device', 'd']) {
    sys.fchmodat(dir, name, 0o7777);
    t.is(sys.fstatat(dir, name).mode & 0o7777, 0o7777);
  }
  sys.symlinkat('file', dir, 'link');
  t.is(
    code(() => sys.fchmodat(dir, 'link', 0o600)),
    'ENOTSUP',
  );
  t.is(
    code(() => sys.chmodByDescriptor(dir, 'link', 0o600)),
    'ENOTSUP',
  );
  t.is(sys.fstatat(dir, 'file').mode & 0o7777, 0o7777);
  sys.chmodByDescriptor(dir, 'device', 0o4711);
  t.is(sys.fstatat(dir, 'device').mode & 0o7777, 0o4711);
  sys.close(dir);
});

test('utimensat keeps nanoseconds, times before 1970, and omits', (t) => {
  const dir = room('times');
  sys.close(sys.openat(dir, 'file', constants.O_CREAT | constants.O_WRONLY, 0o600));
  symlinkSync('file', `${root}/times/link`);
  sys.utimensat(dir, 'link', 1n, 1_700_000_000_123_456_789n);
  t.is(sys.fstatat(dir, 'link').mtimeNs, 1_700_000_000_123_456_789n);
  t.is(sys.fstatat(dir, 'link').atimeNs, 1n);
  t.not(sys.fstatat(dir, 'file').mtimeNs, 1_700_000_000_123_456_789n);
  sys.utimensat(dir, 'file', -1n, -1_500_000_000n);
  t.is(sys.fstatat(dir, 'file').atimeNs, -1n);
  t.is(sys.fstatat(dir, 'file').mtimeNs, -1_500_000_000n);
  sys.utimensat(dir, 'file', 'omit', 5n);
  t.is(sys.fstatat(dir, 'file').atimeNs, -1n);
  t.is(sys.fstatat(dir, 'file').mtimeNs, 5n);
  const before = BigInt(Date.now() - 60_000) * 1_000_000n;
  const fd = sys.openat(dir, 'file', constants.O_RDONLY);
  sys.utimensat(fd, null, 'now', 'omit');
  sys.close(fd);
  t.true(sys.fstatat(dir, 'file').atimeNs > before);
  t.is(sys.fstatat(dir, 'file').mtimeNs, 5n);
  sys.close(dir);
});

test('statx agrees with Node in every field', (t) => {
  const dir = room('stat');
  const fd = sys.openat(dir, 'file', constants.O_CREAT | constants.O_RDWR, 0o640);
  writeFileSync(fd, Buffer.alloc(12345));
  for (const ours of [sys.fstatat(dir, 'file'), sys.fstatat(fd, '')]) {
    const theirs = fstatSync(fd, { bigint: true });
    t.deepEqual(
      { ...ours, kind: '', mountRoot: '' },
      {
        kind: '',
        mountRoot: '',
        mode: Number(theirs.mode),
        uid: Number(theirs.uid),
        gid: Number(theirs.gid),
        nlink: Number(theirs.nlink),
        size: Number(theirs.size),
        blocks: Number(theirs.blocks),
        ino: theirs.ino,
        dev: Number(theirs.dev),
        rdev: Number(theirs.rdev),
        atimeNs: theirs.atimeNs,
        mtimeNs: theirs.mtimeNs,
        ctimeNs: theirs.ctimeNs,
      },
    );
  }
  sys.symlinkat('file', dir, 'link');
  t.is(sys.fstatat(dir, 'link').kind, 'symlink');
  t.is(sys.fstatat(dir, 'link', true).kind, 'file');
  t.is(sys.tryFstatat(dir, 'absent'), undefined);
  t.is(
    code(() => sys.tryFstatat(fd, 'x')),
    'ENOTDIR',
  );
  sys.close(fd);
  sys.close(dir);
});

test('a file larger than 4 GiB has its size', (t) => {
  const dir = room('large');
  const fd = sys.openat(dir, 'file', constants.O_CREAT | constants.O_RDWR, 0o640);
  writeFileSync(fd, 'x');
  sys.close(fd);
  const size = 0x1_2345_6789_ab;
  const path = sys.fdPath(dir, 'file');
  const grow = sys.openat(sys.AT_FDCWD, path, constants.O_RDWR);
  ftruncateSync(grow, size);
  sys.close(grow);
  t.is(sys.fstatat(dir, 'file').size, size);
  sys.close(dir);
});
