import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Skip } from 'troupe/plugin';
import { mountsBelow } from 'troupe/sys';
import { overlayLayout } from './layout.ts';
import { probeOverlay } from './probe.ts';

const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'troupe-overlayfs-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));

const layout = overlayLayout({ snapshots: '/s', mountOptions: ['index=off'], upperdirLabel: false });
const snapshot = (parents: string[], readonly: boolean) => ({ id: '9', parents, readonly, labels: {} });

test('the shapes of mounts are those that clients know', (t) => {
  t.deepEqual(layout.mounts(snapshot([], false)), [{ type: 'bind', source: '/s/9/fs', options: ['rw', 'rbind'] }]);
  t.deepEqual(layout.mounts(snapshot([], true)), [{ type: 'bind', source: '/s/9/fs', options: ['ro', 'rbind'] }]);
  t.deepEqual(layout.mounts(snapshot(['3'], true)), [{ type: 'bind', source: '/s/3/fs', options: ['ro', 'rbind'] }]);
  const overlay = (options: string[]) => [{ type: 'overlay', source: 'overlay', options: ['index=off', ...options] }];
  t.deepEqual(
    layout.mounts(snapshot(['3'], false)),
    overlay(['workdir=/s/9/work', 'upperdir=/s/9/fs', 'lowerdir=/s/3/fs']),
  );
  t.deepEqual(
    layout.mounts(snapshot(['3', '2', '1'], false)),
    overlay(['workdir=/s/9/work', 'upperdir=/s/9/fs', 'lowerdir=/s/3/fs:/s/2/fs:/s/1/fs']),
  );
  t.deepEqual(layout.mounts(snapshot(['3', '2'], true)), overlay(['lowerdir=/s/3/fs:/s/2/fs']));
});

test('a view has no work directory', (t) => {
  for (const readonly of [true, false]) {
    const directory = join(scratch, `${readonly}`);
    mkdirSync(directory);
    void layout.fill(directory, snapshot([], readonly));
    t.deepEqual(readdirSync(directory), readonly ? ['fs'] : ['fs', 'work']);
    t.is(lstatSync(join(directory, 'fs')).mode & 0o7777, 0o755);
    if (!readonly) t.is(lstatSync(join(directory, 'work')).mode & 0o7777, 0o711);
  }
});

test('a parent without its files is not found', (t) => {
  const directory = join(scratch, 'orphan');
  mkdirSync(directory);
  t.throws(() => layout.fill(directory, snapshot(['3'], false)), {
    message: 'files of parent snapshot 3 in /s: not found',
  });
});

test('the upper directory is a label only when asked for', (t) => {
  t.deepEqual(layout.capabilities, ['rebase']);
  const labelled = overlayLayout({ snapshots: '/s', mountOptions: [], upperdirLabel: true });
  t.deepEqual(labelled.capabilities, ['rebase', 'label:containerd.io/snapshot/overlay.upperdir={root}/{id}/fs']);
});

test('the probe says which options are needed, or why it does not work, and leaves nothing', (t) => {
  const root = join(scratch, 'probe');
  const probe = () => {
    try {
      return probeOverlay(root, ['index=on']);
    } catch (error) {
      if (error instanceof Skip) return error.message;
      throw error;
    }
  };
  const outcome = probe();
  if (typeof outcome === 'string') t.regex(outcome, new RegExp(root));
  else t.true(outcome.includes('index=on') && !outcome.includes('index=off'));
  t.deepEqual(readdirSync(root), []);
  t.deepEqual(mountsBelow(root), []);
  // An option that no overlay knows: not skipped silently, and nothing stays mounted.
  t.throws(() => probeOverlay(root, ['nonsense=1']), { instanceOf: Skip, message: /^overlayfs cannot be mounted on / });
  t.deepEqual(readdirSync(root), []);
});
