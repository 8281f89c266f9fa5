import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { lacking, memoryDirectory, rootTest } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = memoryDirectory('sys-mount', 'size=32m');
// Private, so that what is mounted below is seen nowhere else.
if (lacking('mount') === undefined) sys.mount('none', root, '', sys.MS_PRIVATE);

function directory(...names: string[]): string {
  const path = join(root, ...names);
  mkdirSync(path, { recursive: true });
  return path;
}

const info = (path: string): sys.MountInfo | undefined =>
  sys.mountinfo().findLast((mount) => mount.mountPoint === path);

function writable(t: ExecutionContext, path: string, expected: string): void {
  if (expected === 'yes') t.notThrows(() => writeFileSync(join(path, 'probe'), ''));
  else t.throws(() => writeFileSync(join(path, 'probe'), ''), { code: expected });
}

rootTest('mount, isMountPoint, umount2', (t) => {
  const path = directory('plain');
  t.false(sys.isMountPoint(path));
  sys.mount('name of it', path, 'tmpfs', sys.MS_NOSUID | sys.MS_NODEV, 'size=1m');
  t.true(sys.isMountPoint(path));
  t.like(info(path), { fstype: 'tmpfs', source: 'name of it' });
  t.true(['nosuid', 'nodev'].every((option) => info(path)?.options.includes(option)));
  sys.umount2(path);
  t.false(sys.isMountPoint(path));
  t.throws(() => sys.umount2(path), { code: 'EINVAL' });
  t.false(sys.isMountPoint(join(root, 'absent')));
});

rootTest('an error names source, target, type and options', (t) => {
  const path = directory('wrong');
  const error = t.throws(() => sys.mount('overlay', path, 'overlay', 0, 'lowerdir=/no/such'), {
    instanceOf: sys.SysError,
  });
  t.is(error?.code, 'ENOENT');
  t.is(error?.path, 'overlay');
  t.is(error?.dest, path);
  t.regex(error?.message ?? '', /type overlay, options lowerdir=\/no\/such/);
  t.throws(() => sys.mount('x', path, 'nosuchfs', 0), { code: 'ENODEV' });
});

rootTest('a bind mount is read-only when that is asked for, and its source is not', (t) => {
  const source = directory('bind', 'source');
  const target = directory('bind', 'target');
  sys.mountOn(target, { type: 'bind', source, options: ['rbind', 'ro', 'nosuid'] });
  writable(t, target, 'EROFS');
  writable(t, source, 'yes');
  t.true(info(target)?.options.includes('nosuid'));
  sys.umount2(target);
  sys.mountOn(target, { type: '', source, options: ['bind', 'rw'] });
  writable(t, target, 'yes');
  sys.mountOn(target, { type: '', source, options: ['remount', 'bind', 'ro'] });
  writable(t, target, 'EROFS');
});

rootTest('propagation is set by a call of its own, with the mount or alone', (t) => {
  const source = directory('propagation', 'source');
  const target = directory('propagation', 'target');
  sys.mountOn(target, { type: 'bind', source, options: ['rbind', 'shared'] });
  t.is(typeof info(target)?.shared, 'number');
  sys.mountOn(target, { type: '', source: 'none', options: ['rprivate'] });
  t.is(info(target)?.shared, undefined);
  t.is(sys.mountinfo().filter((mount) => mount.mountPoint === target).length, 1, 'nothing was mounted over it');
});

rootTest('a mount whose second call fails does not stay', (t) => {
  const source = directory('half', 'source');
  const target = directory('half', 'target');
  // Two kinds of propagation at once are EINVAL.
  t.throws(() => sys.mountOn(target, { type: 'bind', source, options: ['bind', 'ro', 'private', 'shared'] }), {
    code: 'EINVAL',
  });
  t.false(sys.isMountPoint(target));
});

rootTest('a tmpfs from options with data', (t) => {
  const target = directory('tmpfs');
  sys.mountOn(target, { type: 'tmpfs', source: 'tmpfs', options: ['ro', 'size=64k', 'mode=711'] });
  writable(t, target, 'EROFS');
  t.true(info(target)?.superOptions.includes('size=64k'));
});

/** Layers below one long path, topmost first in the result; layer i holds file i and overrides "same". */
function layers(name: string, count: number): string[] {
  const paths: string[] = [];
  for (let i = 0; i < count; i++) {
    const path = directory(
      name,
      'a-directory-with-a-name-as-long-as-the-ones-of-a-daemon',
      'snapshots',
      String(i),
      'fs',
    );
    writeFileSync(join(path, `file${i}`), String(i));
    writeFileSync(join(path, 'same'), String(i));
    paths.unshift(path);
  }
  return paths;
}

for (const way of ['mount', 'config', 'descriptors'] as const) {
  rootTest(`an overlay of 128 layers, ${way}`, async (t) => {
    const { mountByConfig, mountByDescriptors, parseOverlayOptions } = await import('./overlay.ts');
    const lower = layers(`overlay-${way}`, 128);
    const upper = directory(`overlay-${way}`, 'upper');
    const work = directory(`overlay-${way}`, 'work');
    const target = directory(`overlay-${way}`, 'merged');
    const data = `index=off,lowerdir=${lower.join(':')},upperdir=${upper},workdir=${work}`;
    t.true(data.length > 4096);
    const flags = sys.MS_NOSUID | sys.MS_NODEV;
    if (way === 'mount')
      sys.mountOn(target, { type: 'overlay', source: 'overlay', options: ['nosuid', 'nodev', ...data.split(',')] });
    else if (way === 'config') t.true(mountByConfig('overlay', target, flags, parseOverlayOptions(data)));
    else mountByDescriptors('overlay', target, flags, parseOverlayOptions(data), sys.mount);
    t.is(readFileSync(join(target, 'file0'), 'utf8'), '0');
    t.is(readFileSync(join(target, 'same'), 'utf8'), '127');
    t.is(readdirSync(target).length, 129);
    writeFileSync(join(target, 'new'), 'x');
    t.true(existsSync(join(upper, 'new')));
    t.like(info(target), { fstype: 'overlay', source: 'overlay' });
    t.true(['nosuid', 'nodev'].every((option) => info(target)?.options.includes(option)));
    sys.umount2(target);
  });
}

rootTest('a read-only overlay of 200 layers, and of 500', (t) => {
  for (const count of [200, 500]) {
    const lower = layers(`deep${count}`, count);
    const target = directory(`deep${count}`, 'merged');
    sys.mountOn(target, { type: 'overlay', source: 'overlay', options: ['ro', `lowerdir=${lower.join(':')}`] });
    t.is(readdirSync(target).length, count + 1);
    writable(t, target, 'EROFS');
    sys.umount2(target);
  }
});

rootTest('layers with colons and commas in their names, whose options are too long', (t) => {
  const base = layers('odd', 100);
  const odd = directory('odd', 'a:b,c');
  writeFileSync(join(odd, 'odd'), '');
  const target = directory('odd', 'merged');
  sys.mount(
    'overlay',
    target,
    'overlay',
    sys.MS_RDONLY,
    `lowerdir=${[odd.replace(/[:,]/g, '\\$&'), ...base].join(':')}`,
  );
  t.true(existsSync(join(target, 'odd')));
  t.true(existsSync(join(target, 'file99')));
  sys.umount2(target);
});

rootTest('a missing layer of many is named, and leaves nothing', (t) => {
  const lower = layers('missing', 100);
  const target = directory('missing', 'merged');
  const absent = join(root, 'missing', 'gone');
  const before = readdirSync('/proc/self/fd').length;
  const error = t.throws(() => sys.mount('overlay', target, 'overlay', 0, `lowerdir=${[...lower, absent].join(':')}`), {
    instanceOf: sys.SysError,
  });
  t.is(error?.code, 'ENOENT');
  t.true(error?.message.includes(absent));
  t.false(sys.isMountPoint(target));
  t.is(readdirSync('/proc/self/fd').length, before);
});

rootTest('long data of another file system is refused', (t) => {
  t.throws(() => sys.mount('tmpfs', directory('toolong'), 'tmpfs', 0, `size=${'1'.repeat(5000)}`), { code: 'E2BIG' });
});

rootTest('unmountAll takes stacks, nests, moved mounts and odd names, and only those', (t) => {
  const base = directory('all');
  const beside = directory('all-beside');
  sys.mount('tmpfs', beside, 'tmpfs', 0);
  sys.mount('tmpfs', base, 'tmpfs', 0);
  const inner = directory('all', 'x', 'with space\nand\\line');
  sys.mount('tmpfs', inner, 'tmpfs', 0);
  const child = Buffer.concat([Buffer.from(`${base}/`), Buffer.from([0xff])]);
  mkdirSync(child);
  sys.mount('tmpfs', child, 'tmpfs', 0);
  // Older than the mount that it is moved into, so that it comes first in the table.
  const moved = directory('moved');
  sys.mount('tmpfs', moved, 'tmpfs', 0);
  const late = directory('all', 'late');
  sys.mount('tmpfs', late, 'tmpfs', 0);
  const into = directory('all', 'late', 'into');
  sys.mount(moved, into, '', sys.MS_MOVE);
  sys.mount('tmpfs', base, 'tmpfs', 0);
  t.is(sys.unmountAll(base), 6);
  t.false(sys.isMountPoint(base));
  t.true(sys.isMountPoint(beside));
  t.is(sys.unmountAll(base), 0);
  t.is(sys.unmountAll(join(root, 'absent', 'deeper')), 0);
  sys.umount2(beside);
});

rootTest('unmountAll tells what is in use, after it took the rest; with MNT_DETACH it takes that too', (t) => {
  const base = directory('busy');
  sys.mount('tmpfs', base, 'tmpfs', 0);
  const a = directory('busy', 'a');
  const b = directory('busy', 'b');
  sys.mount('tmpfs', a, 'tmpfs', 0);
  sys.mount('tmpfs', b, 'tmpfs', 0);
  const fd = sys.openat(sys.AT_FDCWD, b, 0);
  t.throws(() => sys.unmountAll(base), { code: 'EBUSY' });
  t.false(sys.isMountPoint(a));
  t.true(sys.isMountPoint(b));
  t.true(sys.unmountAll(base, sys.MNT_DETACH) > 0);
  t.false(sys.isMountPoint(base));
  sys.close(fd);
});

rootTest('a link to a mount point is not followed', (t) => {
  const target = directory('linked');
  sys.mount('tmpfs', target, 'tmpfs', 0);
  const link = join(root, 'link');
  symlinkSync(target, link);
  t.false(sys.isMountPoint(link));
  t.is(sys.unmountAll(link), 0);
  t.throws(() => sys.umount2(link, sys.UMOUNT_NOFOLLOW), { code: 'EINVAL' });
  t.true(sys.detach(target));
  t.false(sys.detach(target));
});

rootTest('a path through a link above it is found', (t) => {
  const target = directory('real', 'mounted');
  sys.mount('tmpfs', target, 'tmpfs', 0);
  symlinkSync(join(root, 'real'), join(root, 'alias'));
  t.is(sys.unmountAll(join(root, 'alias', 'mounted')), 1);
});
