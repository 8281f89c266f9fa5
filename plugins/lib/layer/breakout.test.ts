/** Ways out of the root that other unpackers once left open, and entries that look like one. Names follow the list in containerd's own tests. */

import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { archive, entry } from '../tar/craft.ts';
import { type Before, breakouts } from './breakouts.ts';
import { canary, scratch, unpack } from './scratch.ts';

function layOut(root: string, before: Before): void {
  for (const [name, what] of Object.entries(before)) {
    const path = join(root, name);
    if (what === null) mkdirSync(path);
    else if (typeof what === 'string') writeFileSync(path, what);
    else if ('symlink' in what) symlinkSync(what.symlink, path);
    else linkSync(join(root, what.link), path);
  }
}

for (const [name, { before, entries, refused, content, missing, same, different, links }] of Object.entries(
  breakouts,
)) {
  test(name, async (t) => {
    const { path, root } = scratch(t);
    const untouched = canary(path);
    chmodSync(root, 0o751);
    layOut(root, before ?? {});
    const rootBefore = lstatSync(root);
    const bytes = archive(...entries.map(entry));
    if (refused === undefined) await unpack(root, bytes);
    else {
      const failure = (await t.throwsAsync(unpack(root, bytes), { instanceOf: Failure, message: refused })) as Failure;
      t.is(failure.code, 'InvalidArgument');
      t.false(failure.message.includes(path), 'a path of the host is in the message');
    }
    t.true(untouched(), 'something outside the root changed');
    const rootAfter = lstatSync(root);
    t.deepEqual([rootAfter.ino, rootAfter.mode], [rootBefore.ino, rootBefore.mode]);
    for (const [file, text] of Object.entries(content ?? {})) t.is(readFileSync(join(root, file), 'utf8'), text, file);
    for (const file of missing ?? []) t.false(existsSync(join(root, file)), file);
    const inode = (file: string): number => lstatSync(join(root, file)).ino;
    if (same !== undefined) t.is(inode(same[0]), inode(same[1]));
    if (different !== undefined) t.not(inode(different[0]), inode(different[1]));
    for (const [file, target] of Object.entries(links ?? {})) t.is(readlinkSync(join(root, file)), target);
    if (name === 'HardlinkSymlinkChmod') t.is(statSync(join(path, 'etc/passwd')).mode & 0o7777, 0o640);
  });
}
