/** Keys, kinds, parents, labels, lists and removals: the part of the suite of snapshots about what is recorded of them. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from 'troupe/plugin';
import { Kind } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { labels, nanoseconds } from './snapshots-steps.ts';
import type { Check } from './snapshots-steps.ts';

export function snapshotRecordsSuite(check: Check): void {
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
}
