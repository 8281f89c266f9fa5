import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Log } from 'troupe/plugin';
import { MNT_DETACH, mount, mountsBelow, unmountAll } from 'troupe/sys';
import { rootTest } from '../../test/helpers/privilege.ts';
import { Scratch } from './scratch.ts';

const log = { warn: () => {} } as unknown as Log;

/** A directory with a mount of an earlier daemon, one of this daemon's generation 1, and one of its generation 2. */
function left(t: ExecutionContext): { root: string; names: () => string[] } {
  const root = mkdtempSync(join(tmpdir(), 'troupe-scratch-'));
  t.teardown(() => {
    unmountAll(root, MNT_DETACH);
    rmSync(root, { recursive: true });
  });
  for (const name of ['1.1', `${process.pid}.1`, `${process.pid}.2`]) {
    const point = join(root, name, 'mount-left');
    mkdirSync(point, { recursive: true });
    mount('tmpfs', point, 'tmpfs', 0);
  }
  return { root, names: () => readdirSync(root).sort() };
}

rootTest('beside a generation that still works only what other daemons left is unmounted', (t) => {
  const { root, names } = left(t);
  new Scratch(root, 2).clean(log, false);
  t.deepEqual(names(), [`${process.pid}.1`, `${process.pid}.2`]);
  t.is(mountsBelow(root).length, 2);
});

rootTest('after a crash what the generations before left is unmounted too, and one’s own stays', (t) => {
  const { root, names } = left(t);
  new Scratch(root, 2).clean(log, true);
  t.deepEqual(names(), [`${process.pid}.2`]);
  t.is(mountsBelow(root).length, 1);
});
