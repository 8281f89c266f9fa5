/** For tests: a tree that is hard to copy. */

import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { AT_FDCWD, lsetxattr, makedev, mkfifo, mknodat, utimensat } from 'troupe/sys';

const S_IFCHR = 0o20000;
const S_IFBLK = 0o60000;
const long = 'a-component-of-a-name-that-is-long-'.repeat(7);

/** A tree with one of everything that a file system can hold. */
export function awkward(root: string): void {
  const at = (name: string): string => join(root, name);
  for (const name of ['d', 'd/empty', 'sticky', 'setgid', 'closed', long, `${long}/${long}`]) mkdirSync(at(name));
  writeFileSync(at('d/file'), 'content');
  writeFileSync(at('d/empty-file'), '');
  writeFileSync(at('closed/inside'), 'unreachable by others');
  writeFileSync(at(`${long}/${long}/leaf`), 'deep');
  writeFileSync(at('big'), Buffer.alloc(3 << 20, 'block of content '));
  for (const odd of [
    'with space',
    'new\nline',
    'tab\t',
    'ünïcode',
    'u\u0308nicode',
    '-dash',
    '*glob?',
    'back\\slash',
    '\x1b[31m',
  ]) {
    writeFileSync(at(odd), odd);
  }
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe, 0x2e, 0x80])]), 'no UTF-8');
  linkSync(at('d/file'), at('hard'));
  linkSync(at('d/file'), at('d/zzz-hard'));
  symlinkSync('/nowhere/at/all', at('dangling'));
  symlinkSync('d/file', at('link'));
  linkSync(at('dangling'), at('hard-of-link'));
  symlinkSync(`${long}/${long}/leaf`, at('long-link'));
  mkfifo(at('fifo'), 0o640);
  mknodat(AT_FDCWD, at('null'), S_IFCHR | 0o666, makedev(1, 3));
  mknodat(AT_FDCWD, at('disk'), S_IFBLK | 0o660, makedev(259, 70_000));
  const sparse = openSync(at('sparse'), 'w');
  writeSync(sparse, Buffer.from('start'), 0, 5, 0);
  writeSync(sparse, Buffer.from('middle'), 0, 6, 5 << 20);
  ftruncateSync(sparse, 20 << 20);
  closeSync(sparse);

  chownSync(at('d/file'), 1000, 1001);
  chownSync(at('big'), 3_000_000, 4_000_000_000);
  chownSync(at('d'), 5, 6);
  for (const [name, mode] of [
    ['sticky', 0o1777],
    ['setgid', 0o2755],
    ['closed', 0o700],
    ['d/file', 0o4755],
    ['big', 0o2711],
    ['with space', 0o000],
  ] as const) {
    chmodSync(at(name), mode);
  }
  // Capabilities of version 2 (20 bytes) and 3 (24 bytes); linux/capability.h.
  lsetxattr(at('hard'), 'security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'));
  lsetxattr(at('big'), 'security.capability', Buffer.from('010000030020000000000000000000000000000010270000', 'hex'));
  lsetxattr(at('d/empty-file'), 'user.binary', Buffer.from([0, 1, 2, 10, 61, 255]));
  lsetxattr(at('d'), 'user.of-directory', Buffer.from('yes'));
  lsetxattr(at('link'), 'security.of-link', Buffer.from('yes'));

  let time = 1_500_000_000_123_456_789n;
  const stamp = (directory: string): void => {
    for (const name of readdirSync(directory, { encoding: 'buffer' })) {
      const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
      if (lstatSync(path).isDirectory()) stamp(path.toString());
      time += 1_000_000_001n;
      utimensat(AT_FDCWD, path, time, time);
    }
  };
  stamp(root);
}
