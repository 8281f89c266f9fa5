import test from 'ava';
import { mountinfo, parseMountinfo } from './index.ts';

test('a line with every kind of field', (t) => {
  const line =
    '36 35 98:0 /mnt1 /mnt/with\\040space\\011tab\\012line\\134back rw,noatime shared:5 master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n';
  const [mount] = parseMountinfo(Buffer.from(line));
  t.like(mount, {
    id: 36,
    parent: 35,
    device: '98:0',
    root: '/mnt1',
    mountPoint: '/mnt/with space\ttab\nline\\back',
    options: ['rw', 'noatime'],
    shared: 5,
    master: 1,
    unbindable: false,
    fstype: 'ext3',
    source: '/dev/root',
    superOptions: ['rw', 'errors=continue'],
  });
});

test('no optional fields, unbindable, an empty source, a mount point named "-"', (t) => {
  const text =
    '1 0 0:1 / /- rw - tmpfs none rw\n2 1 0:2 / /a rw unbindable - tmpfs  rw,size=1k\n3 1 0:3 / /b rw - fuse.x a\\040b rw\n';
  const [first, second, third] = parseMountinfo(Buffer.from(text));
  t.like(first, { mountPoint: '/-', fstype: 'tmpfs', source: 'none', shared: undefined, master: undefined });
  t.like(second, { unbindable: true, source: '', superOptions: ['rw', 'size=1k'] });
  t.like(third, { fstype: 'fuse.x', source: 'a b' });
});

test('paths are bytes; an escape that is none stays', (t) => {
  const text = Buffer.concat([
    Buffer.from('1 0 0:1 / /x'),
    Buffer.from([0xff]),
    Buffer.from('\\999\\04 rw - tmpfs none rw\n'),
  ]);
  const [mount] = parseMountinfo(text);
  t.deepEqual(
    mount?.mountPointBytes,
    Buffer.concat([Buffer.from('/x'), Buffer.from([0xff]), Buffer.from('\\999\\04')]),
  );
  t.is(parseMountinfo(Buffer.from('1 0 0:1 / /ä rw - tmpfs none rw'))[0]?.mountPoint, '/ä');
});

test('what has not the form is left out', (t) => {
  t.deepEqual(parseMountinfo(Buffer.from('')), []);
  t.deepEqual(parseMountinfo(Buffer.from('\n1 2 3\n1 0 0:1 / /x rw - tmpfs\n')), []);
});

test('this machine has a root and a proc', (t) => {
  const mounts = mountinfo();
  t.true(mounts.some((mount) => mount.mountPoint === '/'));
  t.true(mounts.some((mount) => mount.mountPoint === '/proc' && mount.fstype === 'proc'));
  t.true(mounts.every((mount) => Number.isInteger(mount.id) && Number.isInteger(mount.parent)));
});
