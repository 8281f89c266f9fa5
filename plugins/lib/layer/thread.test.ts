/** What a pool's thread makes, with an umask of its own and calls left out that would change nothing: the same as GNU tar, wherever that could go wrong. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { lgetxattr, lsetxattr, mount, unmountAll } from 'troupe/sys';
import { rootTest } from '../../../test/helpers/privilege.ts';
import { archive, type Crafted, entry, pax } from '../tar/craft.ts';
import { awkward } from './awkward.ts';
import { inventory } from './inventory.ts';
import { LayerPool } from './pool.ts';
import { scratch } from './scratch.ts';

const never = new AbortController().signal;
const dir = (name: string, more: Crafted = {}): Buffer => entry({ name, type: '5', mode: 0o755, ...more });
const file = (name: string, more: Crafted = {}): Buffer => entry({ name, body: name, ...more });

function setUp(t: ExecutionContext) {
  const s = scratch(t);
  const pool = new LayerPool({ threads: 1, queue: 4 });
  t.teardown(() => pool.close());
  const apply = (bytes: Buffer, source: string) => {
    const blob = join(s.path, createHash('sha256').update(bytes).digest('hex'));
    writeFileSync(blob, bytes);
    const mounts = [{ type: 'bind', source, options: ['rw', 'rbind'] }];
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const task = { subject: 'layer x', blob, digest, size: bytes.length, mounts, scratch: s.path, sync: false };
    return pool.apply(task, never);
  };
  return { s, apply };
}

/** POSIX ACLs as the kernel stores them: version 2, then tag, permissions and id of each entry. */
function acl(...entries: [tag: number, permissions: number][]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length, 0xff);
  bytes.writeUInt32LE(2);
  for (const [i, [tag, permissions]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(permissions, 6 + 8 * i);
  }
  return bytes;
}
const restrictive = acl([1, 7], [4, 4], [32, 0]);
const modeOf = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8);

for (const [name, pack] of [
  ['plain', (bytes: Buffer) => bytes],
  ['gzip', gzipSync],
  ['zstd', zstdCompressSync],
] as const) {
  rootTest(`an awkward tree, ${name}`, async (t) => {
    const { s, apply } = setUp(t);
    const source = s.directory('source');
    awkward(source);
    const all = ['--xattrs', '--xattrs-include=*', '--numeric-owner'];
    const tar = execFileSync('tar', ['-c', '--format=posix', ...all, '-f', '-', '.'], {
      cwd: source,
      maxBuffer: 1 << 28,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await apply(pack(tar), s.root);
    t.deepEqual(inventory(s.root), inventory(source));
  });
}

test('every mode, of files and of directories, whatever the umask', async (t) => {
  const { s, apply } = setUp(t);
  const modes = Array.from({ length: 0o1000 }, (_, mode) => mode);
  await apply(
    archive(
      ...modes.flatMap((mode) => [file(`f${mode}`, { mode }), dir(`d${mode}`, { mode: mode | 0o700 })]),
      ...[0o4755, 0o2755, 0o1777, 0o6711].flatMap((mode) => [file(`f${mode}`, { mode }), dir(`d${mode}`, { mode })]),
      file('implied/by/this'),
    ),
    s.root,
  );
  for (const name of readdirSync(s.root).filter((each) => /^[fd]\d/.test(each))) {
    const mode = Number(name.slice(1));
    t.is(modeOf(join(s.root, name)), (name[0] === 'd' && mode < 0o1000 ? mode | 0o700 : mode).toString(8), name);
  }
  t.deepEqual([modeOf(join(s.root, 'implied')), modeOf(join(s.root, 'implied/by'))], ['755', '755']);
});

rootTest('a root with set-group-ID, and a directory that brings it', async (t) => {
  const { s, apply } = setUp(t);
  chownSync(s.root, 0, 7);
  chmodSync(s.root, 0o2755);
  await apply(archive(dir('d'), file('d/f'), file('f')), s.root);
  const brought = s.directory('brought');
  await apply(
    archive(file('before'), dir('d', { mode: 0o2755, gid: 9 }), dir('d/e'), file('d/e/f'), file('d/f')),
    brought,
  );
  const seen = [s.root, brought].map((root) =>
    ['f', 'd', 'd/f', 'd/e', 'd/e/f'].map((name) => {
      try {
        const { gid } = lstatSync(join(root, name));
        return `${name} ${gid} ${modeOf(join(root, name))}`;
      } catch {
        return '';
      }
    }),
  );
  t.deepEqual(seen, [
    ['f 0 644', 'd 0 755', 'd/f 0 644', '', ''],
    ['', 'd 9 2755', 'd/f 0 644', 'd/e 0 755', 'd/e/f 0 644'],
  ]);
});

rootTest('a root with a default access control list, and a directory that brings one', async (t) => {
  const { s, apply } = setUp(t);
  lsetxattr(s.root, 'system.posix_acl_default', restrictive);
  await apply(
    archive(file('first', { mode: 0o600 }), file('f', { mode: 0o666 }), dir('d'), file('d/f', { mode: 0o666 })),
    s.root,
  );
  t.deepEqual(
    ['f', 'd', 'd/f'].map((name) => modeOf(join(s.root, name))),
    ['666', '755', '666'],
  );
  const brought = s.directory('brought');
  await apply(
    archive(
      file('first', { mode: 0o600 }),
      pax({ 'SCHILY.xattr.system.posix_acl_default': restrictive }),
      dir('d'),
      file('d/f', { mode: 0o666 }),
      dir('d/e', { mode: 0o777 }),
      file('d/e/f', { mode: 0o666 }),
    ),
    brought,
  );
  t.deepEqual(
    ['d', 'd/f', 'd/e', 'd/e/f'].map((name) => modeOf(join(brought, name))),
    ['755', '666', '777', '666'],
  );
  t.deepEqual(lgetxattr(join(brought, 'd'), 'system.posix_acl_default'), restrictive);
});

rootTest('a file system that gives files the group of their directory', async (t) => {
  const { s, apply } = setUp(t);
  const image = join(s.path, 'image');
  execFileSync('truncate', ['-s', '16M', image]);
  execFileSync('mkfs.ext4', ['-q', '-F', image]);
  const at = s.directory('disk');
  execFileSync('mount', ['-o', 'loop,grpid', image, at]);
  t.teardown(() => unmountAll(at));
  const root = join(at, 'root');
  mkdirSync(root);
  chownSync(root, 0, 7);
  await apply(archive(file('a'), file('b'), dir('d'), file('d/c')), root);
  t.deepEqual(
    ['a', 'b', 'd', 'd/c'].map((name) => lstatSync(join(root, name)).gid),
    [0, 0, 0, 0],
  );
});

rootTest('owners and capabilities beside files of the process itself', async (t) => {
  const { s, apply } = setUp(t);
  mount('tmpfs', s.root, 'tmpfs', 0);
  t.teardown(() => unmountAll(s.root));
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  await apply(
    archive(
      file('ours'),
      file('theirs', { uid: 5, gid: 6, mode: 0o4711 }),
      pax({ 'SCHILY.xattr.security.capability': capability }),
      file('capable', { uid: 5 }),
      pax({ 'SCHILY.xattr.security.capability': capability }),
      file('capable-ours'),
      entry({ name: 'link', type: '2', link: 'x', uid: 8 }),
    ),
    s.root,
  );
  const seen = ['ours', 'theirs', 'link'].map((name) => {
    const { uid, gid } = lstatSync(join(s.root, name));
    return `${name} ${uid}:${gid} ${modeOf(join(s.root, name))}`;
  });
  t.deepEqual(seen, ['ours 0:0 644', 'theirs 5:6 4711', 'link 8:0 777']);
  for (const name of ['capable', 'capable-ours'])
    t.deepEqual(lgetxattr(join(s.root, name), 'security.capability'), capability);
});
