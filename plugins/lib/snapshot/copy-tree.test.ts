import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { AT_FDCWD, fchownat, lgetxattr, llistxattr, lsetxattr, makedev, mkfifo, mknodat, utimensat } from 'troupe/sys';
import { rootTest } from '../../../test/helpers/privilege.ts';
import { removeAll } from '../../../test/helpers/scratch.ts';
import { copyTree } from './copy-tree.ts';

const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'troupe-copy-'));
test.after.always(() => removeAll(scratch));
let count = 0;

/** A source to fill, and a target to copy it to. */
function pair(): { from: string; to: string } {
  const from = join(scratch, `${count++}`);
  const to = join(scratch, `${count++}`);
  mkdirSync(from);
  mkdirSync(to);
  return { from, to };
}

test('files, directories and links, with their modes and times', (t) => {
  const { from, to } = pair();
  mkdirSync(join(from, 'dir/deep'), { recursive: true });
  writeFileSync(join(from, 'dir/deep/file'), 'content');
  symlinkSync('/nowhere', join(from, 'dir/link'));
  chmodSync(join(from, 'dir/deep/file'), 0o4751);
  chmodSync(join(from, 'dir/deep'), 0o500);
  chmodSync(from, 0o711);
  for (const [index, name] of ['dir/deep/file', 'dir/link', 'dir/deep', 'dir', '.'].entries()) {
    utimensat(AT_FDCWD, join(from, name), 111_111_111_111_111_111n, 1_234_567_890_123_456_780n + BigInt(index));
  }
  copyTree(from, to);
  for (const [index, name] of ['dir/deep/file', 'dir/link', 'dir/deep', 'dir', '.'].entries()) {
    const status = lstatSync(join(to, name), { bigint: true });
    t.is(status.mtimeNs, 1_234_567_890_123_456_780n + BigInt(index), name);
    t.is(status.mode, lstatSync(join(from, name), { bigint: true }).mode, name);
  }
  t.is(readFileSync(join(to, 'dir/deep/file'), 'utf8'), 'content');
  t.is(readlinkSync(join(to, 'dir/link')), '/nowhere');
});

test('hard links stay links among each other', (t) => {
  const { from, to } = pair();
  mkdirSync(join(from, 'b'));
  writeFileSync(join(from, 'a'), 'x');
  linkSync(join(from, 'a'), join(from, 'b/c'));
  symlinkSync('target', join(from, 'b/s'));
  linkSync(join(from, 'b/s'), join(from, 's'));
  copyTree(from, to);
  t.is(lstatSync(join(to, 'a')).ino, lstatSync(join(to, 'b/c')).ino);
  t.is(lstatSync(join(to, 'a')).nlink, 2);
  t.is(lstatSync(join(to, 's')).ino, lstatSync(join(to, 'b/s')).ino);
  t.not(lstatSync(join(to, 'a')).ino, lstatSync(join(from, 'a')).ino);
});

test('pipes and names that are not UTF-8', (t) => {
  const { from, to } = pair();
  mkfifo(join(from, 'pipe'), 0o640);
  const name = Buffer.from([0x66, 0xff, 0xfe]);
  writeFileSync(Buffer.concat([Buffer.from(`${from}/`), name]), 'x');
  copyTree(from, to);
  t.true(lstatSync(join(to, 'pipe')).isFIFO());
  t.deepEqual(
    readdirSync(to, { encoding: 'buffer' })
      .map((each) => each.toString('hex'))
      .sort(),
    [name.toString('hex'), Buffer.from('pipe').toString('hex')],
  );
});

test('a file of holes takes no space', (t) => {
  const { from, to } = pair();
  writeFileSync(join(from, 'sparse'), '');
  truncateSync(join(from, 'sparse'), 1 << 26);
  copyTree(from, to);
  const { size, blocks } = lstatSync(join(to, 'sparse'));
  t.is(size, 1 << 26);
  t.true(blocks * 512 < 1 << 20, `${blocks} blocks`);
});

rootTest('owners, devices, attributes and file capabilities', (t) => {
  const { from, to } = pair();
  writeFileSync(join(from, 'file'), 'x');
  mknodat(AT_FDCWD, join(from, 'whiteout'), 0o020000, makedev(0, 0));
  mknodat(AT_FDCWD, join(from, 'disk'), 0o060640, makedev(7, 300));
  fchownat(AT_FDCWD, join(from, 'file'), 12, 34);
  fchownat(AT_FDCWD, from, 56, 78);
  // CAP_NET_RAW, version 2 (linux/capability.h).
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  lsetxattr(join(from, 'file'), 'security.capability', capability);
  lsetxattr(join(from, 'file'), 'trusted.overlay.origin', Buffer.from([0, 1, 0xff]));
  lsetxattr(from, 'trusted.of.root', Buffer.from('y'));
  copyTree(from, to);
  const file = lstatSync(join(to, 'file'));
  t.deepEqual([file.uid, file.gid], [12, 34]);
  t.deepEqual([lstatSync(to).uid, lstatSync(to).gid], [56, 78]);
  t.deepEqual(lgetxattr(join(to, 'file'), 'security.capability'), capability);
  t.deepEqual(lgetxattr(join(to, 'file'), 'trusted.overlay.origin'), Buffer.from([0, 1, 0xff]));
  t.deepEqual(llistxattr(to), ['trusted.of.root']);
  t.true(lstatSync(join(to, 'whiteout')).isCharacterDevice());
  t.is(lstatSync(join(to, 'disk')).rdev, lstatSync(join(from, 'disk')).rdev);
});
