import { execFileSync } from 'node:child_process';
import {
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
  closeSync,
  renameSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { lacking, memoryDirectory, needing } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

/** An ext4 of its own on a loop device, in a tmpfs, so that nothing waits for the disk. */
const base = memoryDirectory('sys-sync', 'size=64m');
const image = join(base, 'image');
const root = join(base, 'ext4');
mkdirSync(root);
let device = '';

const loopTest = needing('root', 'mount', 'loop');
const mayLoop = lacking('root', 'mount', 'loop') === undefined;

function mountDevice(): void {
  sys.mountOn(root, { type: 'ext4', source: device, options: ['nosuid'] });
}

test.before(() => {
  if (!mayLoop) return;
  writeFileSync(image, '');
  truncateSync(image, 32 << 20);
  execFileSync('mkfs.ext4', ['-q', '-F', image]);
  device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
  mountDevice();
});

test.after.always(() => {
  sys.unmountAll(root, sys.MNT_DETACH);
  if (device !== '') execFileSync('losetup', ['--detach', device]);
});

loopTest.serial('what was synced survives the end of the file system, what was not does not', (t) => {
  const fd = openSync(root, 'r');
  writeFileSync(join(root, 'synced'), 'synced');
  sys.syncfs(fd);
  const file = openSync(join(root, 'made'), 'w');
  writeSync(file, 'made');
  fsyncSync(file);
  closeSync(file);
  renameSync(join(root, 'made'), join(root, 'renamed'));
  sys.fsyncPath(root);
  writeFileSync(join(root, 'lost'), 'lost');
  sys.shutdownFilesystem(fd, 'discard');
  t.throws(() => writeFileSync(join(root, 'after'), ''), { code: 'EIO' });
  t.throws(() => sys.syncfs(fd), { code: 'EIO' });
  closeSync(fd);
  sys.umount2(root);
  mountDevice();
  t.is(readFileSync(join(root, 'synced'), 'utf8'), 'synced');
  t.is(readFileSync(join(root, 'renamed'), 'utf8'), 'made');
  t.throws(() => readFileSync(join(root, 'lost')), { code: 'ENOENT' });
});

test.serial('errors carry what failed', (t) => {
  t.throws(() => sys.syncfs(-1), { code: 'EBADF', message: /syncfs/ });
  t.throws(() => sys.fsyncPath(join(root, 'absent')), { code: 'ENOENT' });
  t.throws(() => sys.withFd(sys.openat(sys.AT_FDCWD, base, 0), (fd) => sys.cloneFile(fd, -1)), { code: 'EBADF' });
});
