import test from 'ava';
import * as sys from './index.ts';

test('flags are gathered, the rest is data in its order', (t) => {
  t.deepEqual(sys.mountOptions(['rbind', 'ro', 'nosuid', 'noexec', 'nodev']), {
    flags: sys.MS_BIND | sys.MS_REC | sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NOEXEC | sys.MS_NODEV,
    data: '',
  });
  t.deepEqual(sys.mountOptions(['index=off', 'lowerdir=/b:/a', 'userxattr', 'ro']), {
    flags: sys.MS_RDONLY,
    data: 'index=off,lowerdir=/b:/a,userxattr',
  });
  t.deepEqual(sys.mountOptions([]), { flags: 0, data: '' });
});

test('a later word wins', (t) => {
  t.is(sys.mountOptions(['ro', 'rw']).flags, 0);
  t.is(sys.mountOptions(['rw', 'ro']).flags, sys.MS_RDONLY);
  t.is(sys.mountOptions(['noatime', 'atime', 'strictatime']).flags, sys.MS_STRICTATIME);
  t.is(sys.mountOptions(['sync', 'async', 'dirsync', 'remount']).flags, sys.MS_DIRSYNC | sys.MS_REMOUNT);
});

test('propagation, recursive or not', (t) => {
  t.is(sys.mountOptions(['rprivate']).flags, sys.MS_PRIVATE | sys.MS_REC);
  t.is(sys.mountOptions(['slave']).flags, sys.MS_SLAVE);
  t.is(sys.mountOptions(['bind', 'shared']).flags, sys.MS_BIND | sys.MS_SHARED);
});

test('words for mount(8) and init do not reach the kernel', (t) => {
  t.deepEqual(
    sys.mountOptions(['defaults', 'nofail', 'noauto', '_netdev', 'x-systemd.automount', 'X-mount.mkdir', '']),
    {
      flags: 0,
      data: '',
    },
  );
});

test('loop is refused with what to do instead', (t) => {
  t.throws(() => sys.mountOptions(['loop']), { code: 'EINVAL', message: /attach the loop device first/ });
  t.throws(() => sys.mountOptions(['loop=/dev/loop0']), { code: 'EINVAL' });
});
