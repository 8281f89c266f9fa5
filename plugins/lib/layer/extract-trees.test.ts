/** Awkward trees, unpacked: the same as GNU tar and umoci make of them. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AT_FDCWD, fstatat } from 'troupe/sys';
import { needing, rootTest } from '../../../test/helpers/privilege.ts';
import { awkward } from './awkward.ts';
import { inventory } from './inventory.ts';
import { scratch, unpack } from './scratch.ts';

const gnu = (args: string[], cwd: string): Buffer =>
  execFileSync('tar', args, { cwd, maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] });
const keepAll = ['--xattrs', '--xattrs-include=*', '--numeric-owner'];

const formats: Record<string, string[]> = {
  pax: ['--format=posix', ...keepAll],
  'pax, sparse 1.0': ['--format=posix', ...keepAll, '-S', '--sparse-version=1.0'],
  'pax, sparse 0.1': ['--format=posix', ...keepAll, '-S', '--sparse-version=0.1'],
  'pax, sparse 0.0': ['--format=posix', ...keepAll, '-S', '--sparse-version=0.0'],
  gnu: ['--format=gnu', '--numeric-owner'],
  'gnu, sparse': ['--format=gnu', '--numeric-owner', '-S'],
  'oldgnu, sparse': ['--format=oldgnu', '--numeric-owner', '-S'],
};
for (const [format, args] of Object.entries(formats)) {
  rootTest(`an awkward tree in ${format}, unpacked as GNU tar does`, async (t) => {
    const { path, root, directory } = scratch(t);
    const source = directory('source');
    awkward(source);
    const bytes = gnu(['-c', ...args, '-f', '-', '.'], source);
    writeFileSync(join(path, 'layer.tar'), bytes);
    const theirs = directory('theirs');
    gnu(['-x', ...keepAll, '-p', '-f', join(path, 'layer.tar')], theirs);
    const applied = await unpack(root, bytes);
    t.deepEqual(inventory(root), inventory(theirs));
    if (format.startsWith('pax')) t.deepEqual(inventory(root), inventory(source));
    t.deepEqual(applied.omitted, []);
    if (args.includes('-S')) t.true(fstatat(AT_FDCWD, join(root, 'sparse')).blocks < 1000);
  });
}

needing(
  'root',
  'mount',
  'program umoci',
)('an awkward tree, unpacked as umoci does', async (t) => {
  const { path, root, directory } = scratch(t);
  const source = directory('source');
  awkward(source);
  const bytes = gnu(['-c', '--format=posix', ...keepAll, '-f', '-', '.'], source);
  writeFileSync(join(path, 'layer.tar'), bytes);
  const image = join(path, 'image');
  const umoci = (...args: string[]): Buffer => execFileSync('umoci', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  umoci('init', '--layout', image);
  umoci('new', '--image', `${image}:x`);
  umoci('raw', 'add-layer', '--image', `${image}:x`, join(path, 'layer.tar'));
  umoci('raw', 'unpack', '--image', `${image}:x`, join(path, 'rootfs'));
  await unpack(root, bytes);
  t.deepEqual(inventory(root), inventory(join(path, 'rootfs')));
});
