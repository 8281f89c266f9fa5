/** Differences: applied to what they were taken against they give what they were taken from, by our hand and by GNU tar's. */

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { AT_FDCWD, lsetxattr, makedev, mkfifo, mknodat, mount, utimensat } from 'troupe/sys';
import { rootTest } from '../../../test/helpers/privilege.ts';
import { TarReader } from '../tar/reader.ts';
import { type Below, directoryBelow, layersBelow, nothingBelow } from './below.ts';
import { diffLayer, NotPlain } from './diff.ts';
import { inventory } from './inventory.ts';
import { LowerLayers } from './lower.ts';
import { type Scratch, scratch, unpack } from './scratch.ts';

function take(newer: string, below: Below, overlay: boolean): Buffer {
  const fd = openSync(newer, 'r');
  try {
    return Buffer.concat([...diffLayer(fd, below, { overlay, subject: 'diff x' })]);
  } finally {
    closeSync(fd);
  }
}

function between(older: string | undefined, newer: string): Buffer {
  if (older === undefined) return take(newer, nothingBelow, false);
  const fd = openSync(older, 'r');
  try {
    return take(newer, directoryBelow(fd), false);
  } finally {
    closeSync(fd);
  }
}

function ofUpper(upper: string, lower: readonly string[]): Buffer {
  const fds = lower.map((path) => openSync(path, 'r'));
  try {
    return take(upper, layersBelow(new LowerLayers(fds)), true);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** `type name[ -> target]` of each entry. */
function list(tar: Buffer): string[] {
  const entries: string[] = [];
  const reader = new TarReader({
    entry: ({ type, name, linkName }) => entries.push(`${type} ${name}${linkName.length > 0 ? ` -> ${linkName}` : ''}`),
    data() {},
    end() {},
  });
  reader.push(tar);
  reader.finish();
  return entries;
}

const file = (path: string, text = path, mode = 0o644): void => {
  writeFileSync(path, text);
  chmodSync(path, mode);
};

function base(root: string): void {
  for (const name of ['d', 'd/e', 'gone', 'gone/below', 'same', 'same/deep']) mkdirSync(join(root, name));
  for (const name of [
    'a',
    'd/e/f',
    'd/g',
    'gone/x',
    'gone/below/y',
    'same/deep/z',
    'file-to-directory',
    'mode',
    'owner',
  ]) {
    file(join(root, name), name);
  }
  mkdirSync(join(root, 'directory-to-file'));
  file(join(root, 'directory-to-file/x'));
  file(join(root, 'l1'), 'linked');
  linkSync(join(root, 'l1'), join(root, 'd/l2'));
  linkSync(join(root, 'l1'), join(root, 'z3'));
  symlinkSync('a', join(root, 'link'));
  file(join(root, 'big'), 'x'.repeat(3_000_000));
}

const changes: Record<string, { change: (root: string) => void; expect: string[]; asRoot?: true }> = {
  nothing: { change: () => {}, expect: [] },
  'a new file, a changed one, a deleted one': {
    change: (root) => {
      file(join(root, 'd/e/new'));
      file(join(root, 'a'), 'A');
      rmSync(join(root, 'd/g'));
    },
    expect: ['file a', 'directory d/', 'directory d/e/', 'file d/e/new', 'file d/.wh.g'],
  },
  'a deleted directory is one whiteout': {
    change: (root) => rmSync(join(root, 'gone'), { recursive: true }),
    expect: ['file .wh.gone'],
  },
  'a directory of its own again': {
    change: (root) => {
      rmSync(join(root, 'd'), { recursive: true });
      mkdirSync(join(root, 'd'));
      file(join(root, 'd/fresh'));
    },
    expect: ['directory d/', 'file d/.wh.e', 'file d/fresh', 'file d/.wh.g', 'file d/.wh.l2'],
  },
  'mode and owner alone': {
    change: (root) => {
      chmodSync(join(root, 'mode'), 0o4711);
      execFileSync('chown', ['7:8', join(root, 'owner'), join(root, 'same')]);
    },
    expect: ['file mode', 'file owner', 'directory same/'],
    asRoot: true,
  },
  'an attribute alone': {
    change: (root) => lsetxattr(join(root, 'same/deep'), 'user.x', Buffer.from('y')),
    expect: ['directory same/', 'directory same/deep/'],
  },
  'kinds change': {
    change: (root) => {
      rmSync(join(root, 'file-to-directory'));
      mkdirSync(join(root, 'file-to-directory'));
      file(join(root, 'file-to-directory/x'));
      rmSync(join(root, 'directory-to-file'), { recursive: true });
      file(join(root, 'directory-to-file'));
      rmSync(join(root, 'link'));
      symlinkSync('d', join(root, 'link'));
    },
    expect: ['file directory-to-file', 'directory file-to-directory/', 'file file-to-directory/x', 'symlink link -> d'],
  },
  'devices and pipes; sockets are left out': {
    change: (root) => {
      mkfifo(join(root, 'pipe'), 0o600);
      mknodat(AT_FDCWD, join(root, 'null'), 0o20666, makedev(1, 3));
      mknodat(AT_FDCWD, join(root, 'disk'), 0o60660, makedev(8, 1));
      mknodat(AT_FDCWD, join(root, 'socket'), 0o140600);
    },
    expect: ['block disk', 'char null', 'fifo pipe'],
    asRoot: true,
  },
  'new hard links': {
    change: (root) => {
      file(join(root, 'd/h1'), 'new');
      linkSync(join(root, 'd/h1'), join(root, 'h0'));
      linkSync(join(root, 'd/h1'), join(root, 'same/h2'));
    },
    expect: ['directory d/', 'file d/h1', 'hardlink h0 -> d/h1', 'directory same/', 'hardlink same/h2 -> d/h1'],
  },
  'a name more for a file that is there': {
    change: (root) => linkSync(join(root, 'l1'), join(root, 'm4')),
    expect: ['file m4', 'directory d/', 'hardlink d/l2 -> m4', 'hardlink l1 -> m4', 'hardlink z3 -> m4'],
  },
  'content, with time and size as they were': {
    change: (root) => {
      file(join(root, 'a'), 'b');
      utimesSync(join(root, 'a'), 1_500_000_000, 1_500_000_000);
    },
    expect: ['file a'],
  },
  'names that are long, odd, or no text': {
    change: (root) => {
      const long = `${'n'.repeat(250)}/`.repeat(3);
      mkdirSync(join(root, long), { recursive: true });
      file(join(root, long, 'leaf'), 'deep');
      file(join(root, 'ünï\ncode'));
      writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0x80])]), 'bytes');
    },
    expect: [],
  },
};

/** Whole seconds, as a layer of old tools has them, so that contents must be compared; or fractions, so that times tell. */
function settle(root: string, fraction: bigint): void {
  const paths = execFileSync('find', [root, '-print0'], { encoding: 'latin1' }).split('\0').slice(0, -1);
  for (const path of paths) {
    const time = 1_500_000_000_000_000_000n + fraction;
    utimensat(AT_FDCWD, Buffer.from(path, 'latin1'), time, time);
  }
}

function copy(from: string, to: string): void {
  execFileSync('cp', ['-a', `${from}/.`, to]);
}

async function applied(s: Scratch, name: string, older: string, tar: Buffer): Promise<string> {
  const target = s.directory(name);
  copy(older, target);
  await unpack(target, tar);
  return target;
}

for (const [name, { change, expect, asRoot }] of Object.entries(changes)) {
  const declare = asRoot ? rootTest : test;
  for (const fraction of [0n, 123_456_789n]) {
    declare(`two directories: ${name}${fraction === 0n ? ', whole seconds' : ''}`, async (t: ExecutionContext) => {
      const s = scratch(t);
      const older = s.directory('older');
      const newer = s.directory('newer');
      base(older);
      settle(older, fraction);
      copy(older, newer);
      change(newer);
      const tar = between(older, newer);
      if (expect.length > 0 || name === 'nothing') {
        // With whole seconds only the content can tell; otherwise the fraction of the time that was set does.
        if (!name.startsWith('content')) t.deepEqual(list(tar), expect);
      }
      const options = { directoryTimes: false };
      t.deepEqual(
        inventory(await applied(s, 'ours', older, tar), options),
        inventory(newer, { ...options, skip: (p) => p === 'socket' }),
      );
      t.true(between(older, newer).equals(tar), 'not reproducible');
    });
  }

  rootTest(`an upper directory: ${name}`, async (t) => {
    const s = scratch(t);
    const older = s.directory('older');
    base(older);
    settle(older, 123_456_789n);
    const [upper, work, merged] = [s.directory('upper'), s.directory('work'), s.directory('merged')];
    mount('overlay', merged, 'overlay', 0, `index=off,lowerdir=${older},upperdir=${upper},workdir=${work}`);
    change(merged);
    const tar = ofUpper(upper, [older]);
    const skip = (path: string): boolean => path === 'socket';
    // Overlayfs breaks hard links when it copies up; what is seen through it is what counts.
    t.deepEqual(
      inventory(await applied(s, 'ours', older, tar), { directoryTimes: false }).map(unlinked),
      inventory(merged, { directoryTimes: false, skip }).map(unlinked),
    );
    t.true(ofUpper(upper, [older]).equals(tar), 'not reproducible');
    t.deepEqual(
      inventory(await applied(s, 'walked', older, between(older, merged)), { directoryTimes: false }).map(unlinked),
      inventory(merged, { directoryTimes: false, skip }).map(unlinked),
    );
  });
}

const unlinked = (line: string): string => line.replace(/ link of .*$/, '');

rootTest('against nothing: GNU tar reads it back, attribute by attribute', async (t) => {
  const s = scratch(t);
  const tree = s.directory('tree');
  base(tree);
  lsetxattr(join(tree, 'a'), 'security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'));
  lsetxattr(join(tree, 'd'), 'user.b', Buffer.from([0, 10, 61]));
  execFileSync('chown', ['3000000:4000000000', join(tree, 'owner')]);
  settle(tree, 987_654_321n);
  const tar = between(undefined, tree);
  writeFileSync(join(s.path, 'x.tar'), tar);
  const theirs = s.directory('theirs');
  execFileSync('tar', [
    '-xpf',
    join(s.path, 'x.tar'),
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '-C',
    theirs,
  ]);
  // GNU tar loses the capability of a file when it sets the owner of a further link to it, of which there is none here.
  t.deepEqual(inventory(theirs), inventory(tree));
  await unpack(s.root, tar);
  t.deepEqual(inventory(s.root), inventory(tree));
});

test('upper: what was copied up and left as it was is not told', (t) => {
  const s = scratch(t);
  const [lower, upper] = [s.directory('lower'), s.directory('upper')];
  base(lower);
  settle(lower, 5n);
  copy(lower, upper);
  t.deepEqual(
    list(ofUpper(upper, [lower])).filter((line) => !/l1|l2|z3|d\/$/.test(line)),
    [],
  );
});

rootTest('upper: opaque directories and whiteouts, only where there is something to hide', (t) => {
  const s = scratch(t);
  const [lower, upper] = [s.directory('lower'), s.directory('upper')];
  base(lower);
  for (const name of ['d', 'fresh', 'same']) {
    mkdirSync(join(upper, name));
    if (name !== 'same') lsetxattr(join(upper, name), 'trusted.overlay.opaque', Buffer.from('y'));
  }
  for (const name of ['a', 'never-was', 'same/deep', 'same/never']) mknodat(AT_FDCWD, join(upper, name), 0o20000, 0);
  file(join(upper, 'd/new'));
  utimesSync(join(upper, 'same'), 1, 1);
  t.deepEqual(list(ofUpper(upper, [lower])), [
    'file .wh.a',
    'directory d/',
    'file d/.wh..wh..opq',
    'file d/new',
    'directory fresh/',
    'directory same/',
    'file same/.wh.deep',
  ]);
});

rootTest('upper: renamed directories and data left below are for the mounted comparison', (t) => {
  const s = scratch(t);
  const upper = s.directory('upper');
  mkdirSync(join(upper, 'd'));
  lsetxattr(join(upper, 'd'), 'trusted.overlay.redirect', Buffer.from('old'));
  t.throws(() => ofUpper(upper, []), { instanceOf: NotPlain });
});

test('a name that means a deletion is refused', (t) => {
  const s = scratch(t);
  file(join(s.root, '.wh.x'));
  const failure = t.throws(() => between(undefined, s.root), { instanceOf: Failure }) as Failure;
  t.is(failure.code, 'FailedPrecondition');
  t.regex(failure.message, /^diff x: entry "\.wh\.x": .*: failed precondition$/);
});

test('a file that shrinks while it is read is refused, and descriptors are closed', (t) => {
  const s = scratch(t);
  file(join(s.root, 'f'), 'x'.repeat(3 << 20));
  const fd = openSync(s.root, 'r');
  t.teardown(() => closeSync(fd));
  const walk = diffLayer(fd, nothingBelow, { overlay: false });
  walk.next();
  walk.next();
  truncateSync(join(s.root, 'f'), 1 << 20);
  const failure = t.throws(() => [...walk], { instanceOf: Failure }) as Failure;
  t.is(failure.code, 'Aborted');
});
