/** Bundles that a restarted manager finds without a shim to their name: they are cleaned up, and others load. */
import { existsSync, mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { mkfifo } from 'troupe/sys';
import { binary, listen, nothingLeft, options, proper, start } from './fake-shim.ts';
import { makeRig } from './rig.ts';

const corruptions: [title: string, corrupt: (bundle: string, t: ExecutionContext) => void][] = [
  ['has a FIFO for its address', (bundle) => mkfifo(join(bundle, 'address'), 0o600)],
  ['has a link for its address', (bundle) => symlinkSync('/etc/passwd', join(bundle, 'address'))],
  [
    'has an address of a gigabyte',
    (bundle) => {
      writeFileSync(join(bundle, 'address'), '');
      truncateSync(join(bundle, 'address'), 2 ** 30);
    },
  ],
  [
    'has the address of another program',
    (bundle, t) => {
      const path = join(bundle, '../../other.sock');
      const other = createServer((socket) => socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'));
      other.listen(path);
      t.teardown(() => other.close());
      writeFileSync(join(bundle, 'address'), `unix://${path}`);
    },
  ],
  ['has a relative address', (bundle) => writeFileSync(join(bundle, 'address'), 'run/x.sock')],
  ['has half a bootstrap', (bundle) => writeFileSync(join(bundle, 'bootstrap.json'), '{"version":3,"addr')],
  ['has no address and no spec', () => {}],
  ['has a directory for its log', (bundle) => mkdirSync(join(bundle, 'log'))],
];

for (const [title, corrupt] of corruptions) {
  test(`a bundle that ${title} is cleaned up, and others load`, async (t) => {
    const rig = await makeRig(t, { shutdown: 200 });
    const good = join(rig.directory, 'good.sock');
    await listen(t, good, proper);
    const before = start(t, rig);
    await before.create(options(binary(rig, `echo unix://${good}`), { id: 'other' }));
    before.stop();
    const bundle = join(rig.host.state, 'fake/web');
    mkdirSync(bundle, { recursive: true });
    const shim = binary(rig, ':');
    writeFileSync(join(bundle, 'shim-binary-path'), shim);
    corrupt(bundle, t);
    const manager = start(t, rig);
    await manager.loaded();
    t.is((await manager.find('fake', 'other')).pid, 4242);
    t.true(existsSync(`${shim}.deleted`));
    nothingLeft(t, rig);
  });
}

test('a bundle in which no shim was started goes, so does what was on its way out, and work that is nobody’s', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  mkdirSync(join(rig.host.state, 'fake/web/rootfs'), { recursive: true });
  mkdirSync(join(rig.host.state, 'fake/.old/rootfs'), { recursive: true });
  mkdirSync(join(rig.host.state, '.checkpoint-abc'), { recursive: true });
  mkdirSync(join(rig.host.root, 'fake/lost'), { recursive: true });
  const manager = start(t, rig);
  await manager.swept;
  t.deepEqual(readdirSync(rig.host.state), []);
  t.deepEqual(readdirSync(rig.host.root), []);
  t.deepEqual(rig.events, []);
});

test('a bundle that got stuck on its way out goes when tasks are asked for; a checkpoint in use stays', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const manager = start(t, rig);
  await manager.swept;
  const stuck = join(rig.host.state, 'fake/.old/rootfs');
  const work = join(rig.host.root, 'fake/old');
  const checkpoint = join(rig.host.state, '.checkpoint-abc');
  for (const path of [stuck, work, checkpoint]) mkdirSync(path, { recursive: true });
  await manager.list();
  while (existsSync(join(stuck, '..')) || existsSync(work)) await setImmediate();
  t.true(existsSync(checkpoint));
});
