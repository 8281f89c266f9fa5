/**
 * What any snapshotter must do behind the Snapshots service, seen only through the API and through mounts. The topics are those that containerd checks
 * its own snapshotters for. Run it over plugins in process, over the bus, over a socket: the factory says how.
 *
 *     snapshotsSuite('overlayfs', async (t) => ({ snapshots, snapshotter: 'overlayfs', scratch }));
 */
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
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { attributes, labels, nanoseconds, type SnapshotsUnderTest, Steps } from './snapshots-steps.ts';

/**
 * @param skip why this snapshotter, or any, does not work on this machine; the tests are reported as skipped then.
 */
export function snapshotsSuite(
  name: string,
  factory: (t: ExecutionContext) => Promise<SnapshotsUnderTest>,
  skip?: string,
): void {
  const check = (title: string, body: (t: ExecutionContext, s: Steps) => Promise<void>): void => {
    if (skip !== undefined) test.skip(`${name}: ${title} (skipped: ${skip})`, () => {});
    else test(`${name}: ${title}`, async (t) => body(t, new Steps(t, await factory(t))));
  };

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

  check('stat of an active snapshot', async (t, s) => {
    await s.prepare('active');
    const info = await s.stat('active');
    t.is(info.kind, Kind.ACTIVE);
    t.is(info.parent, '');
    t.deepEqual(info.createdAt, info.updatedAt);
    await s.layer('base', '', () => {});
    await s.prepare('child', 'base');
    t.is((await s.stat('child')).parent, 'base');
  });

  check('stat of a committed snapshot', async (t, s) => {
    await s.prepare('active');
    const active = await s.stat('active');
    await s.commit('committed', 'active');
    const info = await s.stat('committed');
    t.is(info.kind, Kind.COMMITTED);
    t.true(nanoseconds(info.createdAt) > nanoseconds(active.createdAt));
    await s.fails('NotFound', 'snapshot active does not exist: not found', s.stat('active'));
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

  check('names are taken once, and parents must be committed', async (t, s) => {
    await s.prepare('active');
    await s.fails('AlreadyExists', 'snapshot "active": already exists', s.prepare('active'));
    await s.fails('AlreadyExists', 'snapshot "active": already exists', s.view('active'));
    await s.fails('NotFound', 'parent snapshot nowhere does not exist: not found', s.prepare('a', 'nowhere'));
    await s.fails('NotFound', 'parent snapshot nowhere does not exist: not found', s.view('a', 'nowhere'));
    await s.fails(
      'InvalidArgument',
      /^failed to create snapshot: parent "\S+\/\d+\/active" is not committed snapshot: invalid argument$/,
      s.prepare('a', 'active'),
    );
    await s.view('view');
    await s.fails('InvalidArgument', /is not committed snapshot/, s.view('a', 'view'));
    await s.fails(
      'FailedPrecondition',
      /^failed to commit snapshot: snapshot "\S+\/\d+\/view" is not active: failed precondition$/,
      s.commit('a', 'view'),
    );
    await s.commit('committed', 'active');
    await s.fails('NotFound', 'snapshot active does not exist: not found', s.commit('again', 'active'));
    await s.fails('FailedPrecondition', /is not active/, s.commit('again', 'committed'));
    await s.prepare('other', 'committed');
    await s.fails('AlreadyExists', 'snapshot "committed": already exists', s.commit('committed', 'other'));
    await s.fails('AlreadyExists', 'snapshot "view": already exists', s.commit('view', 'other'));
    await s.fails(
      'FailedPrecondition',
      /^failed to get active mount: requested snapshot \S+\/\d+\/committed not active or view: failed precondition$/,
      s.mounts('committed'),
    );
    await s.fails(
      'AlreadyExists',
      'target snapshot "committed": already exists',
      s.prepare('fresh', '', { 'containerd.io/snapshot.ref': 'committed' }),
    );
    t.deepEqual(await s.list(), ['committed', 'other', 'view']);
  });

  check('what is not there', async (t, s) => {
    const expected = 'snapshot nothing does not exist: not found';
    await s.fails('NotFound', expected, s.stat('nothing'));
    await s.fails('NotFound', expected, s.mounts('nothing'));
    await s.fails('NotFound', expected, s.remove('nothing'));
    await s.fails('NotFound', expected, s.commit('name', 'nothing'));
    await s.fails('NotFound', expected, s.usage('nothing'));
    await s.fails('NotFound', expected, s.update('nothing', {}, []));
    await s.fails(
      'InvalidArgument',
      'snapshotter not loaded: nope: invalid argument',
      s.snapshots.stat({ snapshotter: 'nope', key: 'a' }),
    );
    await s.fails('InvalidArgument', 'snapshotter argument missing: invalid argument', s.snapshots.stat({ key: 'a' }));
    await s.fails('InvalidArgument', 'snapshot key is required: invalid argument', s.prepare(''));
    await s.fails('InvalidArgument', 'snapshot key contains NUL: invalid argument', s.prepare('a\0b'));
    t.deepEqual(await s.list(), []);
  });

  check('labels are updated by mask, and nothing else is', async (t, s) => {
    await s.prepare('key', '', { keep: '1', drop: '2' });
    const before = await s.stat('key');
    t.deepEqual((await s.update('key', { drop: '', add: '3' }, ['labels.drop', 'labels.add'])).labels, {
      ...labels,
      keep: '1',
      add: '3',
    });
    const after = await s.stat('key');
    t.deepEqual(after.createdAt, before.createdAt);
    t.true(nanoseconds(after.updatedAt) > nanoseconds(before.updatedAt));
    t.deepEqual((await s.update('key', { 'with.dots/x': 'y', ignored: '1' }, ['labels.with.dots/x'])).labels, {
      ...labels,
      keep: '1',
      add: '3',
      'with.dots/x': 'y',
    });
    t.deepEqual((await s.update('key', { ...labels, only: 'this' }, ['labels'])).labels, { ...labels, only: 'this' });
    t.deepEqual((await s.update('key', labels, [])).labels, labels);
    await s.fails(
      'InvalidArgument',
      'cannot update "parent" field on snapshot "key": invalid argument',
      s.update('key', {}, ['parent']),
    );
    await s.fails(
      'InvalidArgument',
      'cannot update "*" field on snapshot "key": invalid argument',
      s.update('key', {}, ['*']),
    );
    const long = 'info.Labels: label key and value greater than maximum size (4096 bytes), key: k: invalid argument';
    await s.fails('InvalidArgument', long, s.update('key', { k: 'v'.repeat(4096) }, []));
    await s.fails('InvalidArgument', long, s.prepare('other', '', { k: 'v'.repeat(4096) }));
    await s.commit('committed', 'key', { new: 'label' });
    t.deepEqual((await s.stat('committed')).labels, { ...labels, new: 'label' });
  });

  check('updates at the same time are all there afterwards', async (t, s) => {
    await s.prepare('key');
    await Promise.all(Array.from({ length: 10 }, (_, i) => s.update('key', { [`l${i}`]: 'x' }, [`labels.l${i}`])));
    t.is(Object.keys((await s.stat('key')).labels).length, 11);
  });

  check('of many that prepare the same key one succeeds', async (t, s) => {
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => s.prepare('key')));
    t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') t.true(Failure.is(outcome.reason, 'AlreadyExists'));
  });

  check('list: filters, order and batches', async (t, s) => {
    await s.layer('c1', '', () => {});
    await s.prepare('a1', 'c1', { colour: 'red' });
    await s.view('v1', 'c1');
    t.deepEqual(await s.list('kind==active'), ['a1']);
    t.deepEqual(await s.list('kind==view'), ['v1']);
    t.deepEqual(await s.list('kind==committed'), ['c1']);
    t.deepEqual(await s.list('kind==Active'), []);
    t.deepEqual(await s.list('parent==c1'), ['a1', 'v1']);
    t.deepEqual(await s.list('parent'), ['a1', 'c1', 'v1']);
    t.deepEqual(await s.list('labels.colour==red'), ['a1']);
    t.deepEqual(await s.list('name==a1', 'name==c1'), ['a1', 'c1']);
    t.deepEqual(await s.list('name~="[av]1",kind!=view'), ['a1']);
    await s.fails('InvalidArgument', /^filters: parse error/, s.list('((('));
    for (let i = 0; i < 205; i++) await s.prepare(`n${String(i).padStart(3, '0')}`);
    const sizes: number[] = [];
    for await (const { info } of s.snapshots.list({ snapshotter: s.snapshotter, filters: ['name~=^n'] }))
      sizes.push(info.length);
    t.deepEqual(sizes, [100, 100, 5]);
  });

  check('keys are free text', async (t, s) => {
    const keys = ['../../etc', 'a/b/c', 'extract-1 sha256:00', 'k'.repeat(5000), 'ключ'];
    for (const key of keys) await s.prepare(key);
    t.deepEqual((await s.list()).sort(), [...keys].sort());
    for (const key of keys) await s.remove(key);
    t.deepEqual(await s.list(), []);
  });

  check('remove: leaves go, what others stand on stays', async (t, s) => {
    await s.layer('one', '', (root) => writeFileSync(join(root, 'one'), ''));
    await s.layer('two', 'one', (root) => writeFileSync(join(root, 'two'), ''));
    await s.view('view', 'two');
    const refusal = 'cannot remove snapshot with child: failed precondition';
    await s.fails('FailedPrecondition', refusal, s.remove('one'));
    await s.fails('FailedPrecondition', refusal, s.remove('two'));
    await s.remove('view');
    await s.remove('two');
    await s.see('one', (root) => t.deepEqual(readdirSync(root), ['one']));
    await s.remove('one');
    t.deepEqual(await s.list(), []);
  });

  check('a removed key is free again', async (t, s) => {
    for (let i = 0; i < 3; i++) {
      await s.prepare('key');
      await s.mounted('key', (root) => {
        t.deepEqual(readdirSync(root), []);
        writeFileSync(join(root, 'file'), '');
      });
      await s.remove('key');
    }
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
