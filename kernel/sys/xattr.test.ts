import { constants, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { memoryDirectory, rootTest } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = memoryDirectory('sys-xattr', 'size=16m');

rootTest('set, get, list and remove by path', (t) => {
  const path = join(root, 'file');
  writeFileSync(path, '');
  const value = Buffer.from([0, 1, 0xff, 0]);
  sys.lsetxattr(path, 'trusted.a', value);
  sys.lsetxattr(path, Buffer.from('trusted.b'), Buffer.alloc(0));
  t.deepEqual(sys.lgetxattr(path, 'trusted.a'), value);
  t.deepEqual(sys.lgetxattr(path, 'trusted.b'), Buffer.alloc(0));
  t.is(sys.lgetxattr(path, 'trusted.absent'), undefined);
  t.deepEqual(
    sys
      .llistxattr(path)
      .filter((name) => name.startsWith('trusted.'))
      .sort(),
    ['trusted.a', 'trusted.b'],
  );
  sys.lremovexattr(path, 'trusted.a');
  t.is(sys.lgetxattr(path, 'trusted.a'), undefined);
  t.throws(() => sys.lremovexattr(path, 'trusted.a'), { code: 'ENODATA' });
  t.throws(() => sys.lsetxattr(path, 'trusted.b', value, sys.XATTR_CREATE), { code: 'EEXIST' });
  t.throws(() => sys.lsetxattr(path, 'trusted.c', value, sys.XATTR_REPLACE), { code: 'ENODATA' });
  t.throws(() => sys.lsetxattr(path, 'nonsense', value), { code: 'ENOTSUP' });
  t.throws(() => sys.lgetxattr(join(root, 'absent'), 'trusted.a'), { code: 'ENOENT' });
});

rootTest('by descriptor', (t) => {
  const fd = sys.openat(sys.AT_FDCWD, join(root, 'open'), constants.O_CREAT | constants.O_RDWR, 0o600);
  t.deepEqual(
    sys.flistxattr(fd).filter((name) => name.startsWith('trusted.')),
    [],
  );
  sys.fsetxattr(fd, 'trusted.x', Buffer.from('y'));
  t.deepEqual(sys.fgetxattr(fd, 'trusted.x'), Buffer.from('y'));
  t.true(sys.flistxattr(fd).includes('trusted.x'));
  sys.fremovexattr(fd, 'trusted.x');
  t.is(sys.fgetxattr(fd, 'trusted.x'), undefined);
  sys.close(fd);
});

rootTest('a link has its own, reached through the held directory', (t) => {
  const dir = sys.openat(sys.AT_FDCWD, root, sys.O_PATH | constants.O_DIRECTORY);
  sys.symlinkat('nowhere', dir, 'link');
  sys.lsetxattr(sys.fdPath(dir, 'link'), 'trusted.l', Buffer.from('1'));
  t.deepEqual(sys.lgetxattr(sys.fdPath(dir, Buffer.from('link')), 'trusted.l'), Buffer.from('1'));
  sys.close(dir);
});

rootTest('values and lists larger than the scratch buffer, of which no later call sees a trace', (t) => {
  const path = join(root, 'large');
  writeFileSync(path, '');
  const value = Buffer.alloc(60_000, 7);
  sys.lsetxattr(path, 'trusted.large', value);
  const got = sys.lgetxattr(path, 'trusted.large');
  t.deepEqual(got, value);
  sys.lsetxattr(path, 'trusted.small', Buffer.from('abc'));
  const first = sys.lgetxattr(path, 'trusted.small');
  sys.lsetxattr(path, 'trusted.small', Buffer.from('xyz'));
  sys.lgetxattr(path, 'trusted.small');
  t.deepEqual(first, Buffer.from('abc'));
  const names = Array.from({ length: 60 }, (_, i) => `trusted.${'n'.repeat(200)}${i}`);
  for (const name of names) sys.lsetxattr(path, name, Buffer.from('v'));
  const listed = new Set(sys.llistxattr(path));
  t.true(names.every((name) => listed.has(name)));
});
