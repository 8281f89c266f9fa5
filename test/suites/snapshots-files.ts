/** Layers, and what is seen of them through mounts: the part of the suite of snapshots about files. */
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { attributes } from './snapshots-steps.ts';
import type { Check } from './snapshots-steps.ts';

export function snapshotFilesSuite(check: Check): void {
  check('basic: two layers, each with what it was given', async (t, s) => {
    await s.layer('base', '', (root) => {
      writeFileSync(join(root, 'foo'), 'foo\n');
      mkdirSync(join(root, 'a/b'), { recursive: true });
    });
    await s.layer('next', 'base', (root) => {
      t.is(readFileSync(join(root, 'foo'), 'utf8'), 'foo\n');
      writeFileSync(join(root, 'bar'), 'bar\n');
      unlinkSync(join(root, 'foo'));
      rmSync(join(root, 'a'), { recursive: true });
    });
    t.is((await s.stat('base')).parent, '');
    t.is((await s.stat('next')).parent, 'base');
    await s.see('next', (root) => t.deepEqual(readdirSync(root), ['bar']));
    await s.see('base', (root) => t.deepEqual(readdirSync(root).sort(), ['a', 'foo']));
  });

  check('what a child changes stays out of its parent', async (t, s) => {
    await s.layer('base', '', (root) => writeFileSync(join(root, 'foo'), 'foo\n'));
    await s.layer('middle', 'base', (root) => writeFileSync(join(root, 'bar'), 'bar\n'));
    await s.prepare('snapA', 'middle');
    await s.prepare('snapB', 'middle');
    await s.mounted('snapA', (root) => unlinkSync(join(root, 'bar')));
    await s.mounted('snapB', (root) => t.deepEqual(readdirSync(root).sort(), ['bar', 'foo']));
    await s.mounted('snapA', (root) => t.deepEqual(readdirSync(root), ['foo']));
    await s.fails('FailedPrecondition', 'cannot remove snapshot with child: failed precondition', s.remove('middle'));
  });

  check('a view is read only, and stays so', async (t, s) => {
    await s.layer('base', '', (root) => writeFileSync(join(root, 'foo'), ''));
    await s.layer('next', 'base', (root) => writeFileSync(join(root, 'bar'), ''));
    for (const [key, parent] of [
      ['empty', ''],
      ['one', 'base'],
      ['two', 'next'],
    ] as const) {
      await s.view(key, parent);
      t.is((await s.stat(key)).kind, Kind.VIEW);
      await s.mounted(key, (root) => t.throws(() => writeFileSync(join(root, 'new'), ''), { code: 'EROFS' }));
      t.deepEqual(await s.usage(key), { size: 0n, inodes: 0n });
    }
  });

  check('mounts are told the same twice', async (t, s) => {
    await s.layer('base', '', () => {});
    const mounts = await s.prepare('active', 'base');
    t.deepEqual(await s.mounts('active'), mounts);
    const view = await s.view('view', 'base');
    t.deepEqual(await s.mounts('view'), view);
  });

  check('files are changed, deleted and made again over layers', async (t, s) => {
    await s.layer('l1', '', (root) => {
      mkdirSync(join(root, 'etc'));
      writeFileSync(join(root, 'etc/hosts'), 'one\n');
      writeFileSync(join(root, 'etc/profile'), 'profile\n');
      mkdirSync(join(root, 'lib/systemd'), { recursive: true });
      writeFileSync(join(root, 'lib/systemd/unit'), '');
      symlinkSync('/nowhere', join(root, 'link'));
    });
    await s.layer('l2', 'l1', (root) => {
      appendFileSync(join(root, 'etc/hosts'), 'two\n');
      unlinkSync(join(root, 'etc/profile'));
      rmSync(join(root, 'lib'), { recursive: true });
    });
    await s.layer('l3', 'l2', (root) => {
      t.is(readFileSync(join(root, 'etc/hosts'), 'utf8'), 'one\ntwo\n');
      t.false(existsSync(join(root, 'etc/profile')));
      mkdirSync(join(root, 'lib'));
      writeFileSync(join(root, 'etc/profile'), 'again\n');
    });
    await s.see('l3', (root) => {
      t.deepEqual(readdirSync(join(root, 'lib')), [], 'a directory that was removed does not show its old entries');
      t.is(readFileSync(join(root, 'etc/profile'), 'utf8'), 'again\n');
      t.is(readlinkSync(join(root, 'link')), '/nowhere');
    });
  });

  check('a directory of a lower layer is removed', async (t, s) => {
    await s.layer('l1', '', (root) => {
      mkdirSync(join(root, 'dir1'));
      writeFileSync(join(root, 'dir1/file'), '');
      mkdirSync(join(root, 'dir2'));
    });
    await s.layer('l2', 'l1', (root) => {
      rmSync(join(root, 'dir1'), { recursive: true });
      rmdirSync(join(root, 'dir2'));
    });
    await s.layer('l3', 'l2', (root) => mkdirSync(join(root, 'dir1')));
    await s.see('l3', (root) => {
      t.deepEqual(readdirSync(root), ['dir1']);
      t.deepEqual(readdirSync(join(root, 'dir1')), []);
    });
  });

  check('files are renamed and moved between layers', async (t, s) => {
    await s.layer('l1', '', (root) => {
      mkdirSync(join(root, 'dir1'));
      writeFileSync(join(root, 'dir1/f1'), 'f1');
      mkdirSync(join(root, 'dir2'));
      writeFileSync(join(root, 'somefile'), 'was here first');
    });
    await s.layer('l2', 'l1', (root) => {
      renameSync(join(root, 'dir1/f1'), join(root, 'dir2/f2'));
      renameSync(join(root, 'somefile'), join(root, 'moved'));
      // Directories of a lower layer are moved by copying, where the kernel does not redirect them.
      mkdirSync(join(root, 'dir3'));
      renameSync(join(root, 'dir3'), join(root, 'dir4'));
    });
    await s.see('l2', (root) => {
      t.deepEqual(readdirSync(root).sort(), ['dir1', 'dir2', 'dir4', 'moved']);
      t.is(readFileSync(join(root, 'dir2/f2'), 'utf8'), 'f1');
      t.deepEqual(readdirSync(join(root, 'dir1')), []);
    });
  });

  check('owners and modes are kept', async (t, s) => {
    await s.layer('l1', '', (root) => {
      writeFileSync(join(root, 'file'), '');
      mkdirSync(join(root, 'dir'));
      symlinkSync('file', join(root, 'link'));
      chownSync(join(root, 'file'), 1, 2);
      chmodSync(join(root, 'file'), 0o4755);
      chownSync(join(root, 'dir'), 3, 4);
      chmodSync(join(root, 'dir'), 0o1777);
      lchownSync(join(root, 'link'), 5, 6);
    });
    await s.layer('l2', 'l1', (root) => {
      t.deepEqual(attributes(join(root, 'file')), { uid: 1, gid: 2, mode: 0o4755 });
      t.deepEqual(attributes(join(root, 'dir')), { uid: 3, gid: 4, mode: 0o1777 });
      chownSync(join(root, 'file'), 7, 8);
    });
    await s.see('l2', (root) => {
      t.deepEqual(
        attributes(join(root, 'file')),
        { uid: 7, gid: 8, mode: 0o755 },
        'a change of owner clears set-user-id',
      );
      t.deepEqual(attributes(join(root, 'link')).uid, 5);
    });
  });

  check('the root directory keeps its attributes through layers', async (t, s) => {
    await s.prepare('l1-active');
    await s.mounted('l1-active', (root) => t.deepEqual(attributes(root).mode, 0o755));
    await s.mounted('l1-active', (root) => {
      chownSync(root, 11, 12);
      chmodSync(root, 0o711);
    });
    await s.commit('l1', 'l1-active');
    await s.layer('l2', 'l1', (root) => t.deepEqual(attributes(root), { uid: 11, gid: 12, mode: 0o711 }));
    await s.see('l2', (root) => t.deepEqual(attributes(root), { uid: 11, gid: 12, mode: 0o711 }));
  });

  check('the mode of a directory survives a commit', async (t, s) => {
    await s.layer('l1', '', (root) => {
      mkdirSync(join(root, 'dir1'));
      chmodSync(join(root, 'dir1'), 0o700);
      mkdirSync(join(root, 'dir2'));
      chmodSync(join(root, 'dir2'), 0o777);
    });
    await s.layer('l2', 'l1', (root) => writeFileSync(join(root, 'dir1/f'), ''));
    await s.layer('l3', 'l2', (root) => {
      t.is(attributes(join(root, 'dir1')).mode, 0o700);
      t.is(attributes(join(root, 'dir2')).mode, 0o777);
    });
  });

  check('times are kept', async (t, s) => {
    const time = 1_234_567_890.5;
    await s.layer('l1', '', (root) => {
      writeFileSync(join(root, 'file'), '');
      utimesSync(join(root, 'file'), time, time);
      mkdirSync(join(root, 'dir'));
      utimesSync(join(root, 'dir'), time, time);
    });
    await s.layer('l2', 'l1', (root) => writeFileSync(join(root, 'other'), ''));
    await s.see('l2', (root) => {
      t.is(lstatSync(join(root, 'file'), { bigint: true }).mtimeNs, 1_234_567_890_500_000_000n);
      t.is(lstatSync(join(root, 'dir'), { bigint: true }).mtimeNs, 1_234_567_890_500_000_000n);
    });
  });

  check('hard links and sparse files', async (t, s) => {
    await s.layer('l1', '', (root) => {
      writeFileSync(join(root, 'file'), 'x');
      linkSync(join(root, 'file'), join(root, 'again'));
      writeFileSync(join(root, 'sparse'), '');
      truncateSync(join(root, 'sparse'), 1 << 24);
    });
    await s.prepare('l2', 'l1');
    await s.mounted('l2', (root) => {
      t.is(lstatSync(join(root, 'file')).ino, lstatSync(join(root, 'again')).ino);
      t.is(lstatSync(join(root, 'sparse')).size, 1 << 24);
    });
    t.true((await s.usage('l1')).size < BigInt(1 << 22));
  });

  check('usage grows with what is written and is kept by a commit', async (t, s) => {
    await s.prepare('active');
    const empty = await s.usage('active');
    t.is(empty.inodes, 1n);
    await s.mounted('active', (root) => {
      writeFileSync(join(root, 'file'), Buffer.alloc(100_000, 1));
      linkSync(join(root, 'file'), join(root, 'again'));
      mkdirSync(join(root, 'dir'));
    });
    const full = await s.usage('active');
    t.is(full.inodes, 3n);
    t.true(full.size - empty.size >= 100_000n && full.size - empty.size < 200_000n, `${full.size}`);
    await s.commit('committed', 'active');
    t.deepEqual(await s.usage('committed'), full);
  });

  check('128 layers are mounted', async (t, s) => {
    for (let i = 1; i <= 128; i++) {
      const key = `active ${i}`;
      await s.prepare(key, i === 1 ? '' : `layer ${i - 1}`);
      await s.mounted(key, (root) => writeFileSync(join(root, 'bottom'), `${i}`));
      await s.commit(`layer ${i}`, key);
    }
    await s.prepare('top', 'layer 128');
    await s.mounted('top', (root) => {
      t.is(readFileSync(join(root, 'bottom'), 'utf8'), '128');
      writeFileSync(join(root, 'top'), '');
    });
  });
}
