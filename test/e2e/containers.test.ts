/** `ctr containers`, as an operator types it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { usePair } from '../helpers/pair.ts';

const { test, both } = usePair();

test('create, ls, label, delete', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['containers', 'ls']);
    await side.show(['containers', 'create', image, 'one']);
    await side.show(['containers', 'create', '--label', 'color=red', '--label', 'empty=', image, 'two', 'sleep', '9']);
    await side.show(['containers', 'create', '--snapshotter', 'native', image, 'three', 'true']);
    await side.show(['containers', 'create', '--rootfs', side.rootfs(), 'four', 'true']);
    await side.show(['containers', 'create', image, 'one']);
    await side.show(['containers', 'create', image]);
    await side.show(['containers', 'create', 'docker.io/library/none:1', 'five']);
    await side.show(['containers', 'create', image, '../up']);
    await side.show(['containers', 'create', '--label', `long=${'x'.repeat(4096)}`, image, 'six']);
    await side.show(['containers', 'ls']);
    await side.show(['containers', 'ls', '-q']);
    await side.show(['containers', 'ls', 'labels.color==red']);
    await side.show(['containers', 'ls', '-q', 'labels.color']);
    await side.show(['containers', 'ls', '-q', 'id~=^t', 'image!=x,labels.color==red']);
    await side.show(['containers', 'ls', '-q', 'runtime.name==io.containerd.runc.v2']);
    await side.show(['containers', 'ls', 'nonsense==']);
    await side.show(['containers', 'ls', 'id=~x']);
    await side.show(['snapshots', 'ls']);
    await side.show(['containers', 'label', 'two', 'size=big', 'color=']);
    await side.show(['containers', 'label', 'two']);
    await side.show(['containers', 'label', 'none', 'a=b']);
    await side.show(['containers', 'label', 'two', `long=${'x'.repeat(4096)}`]);
    await side.show(['containers', 'rm', 'none']);
    await side.show(['containers', 'rm', 'one', 'none', 'two']);
    await side.show(['containers', 'rm', '--keep-snapshot', 'three']);
    await side.show(['containers', 'rm']);
    await side.show(['containers', 'ls', '-q']);
    await side.show(['snapshots', '--snapshotter', 'native', 'ls']);
    await side.show(['snapshots', '--snapshotter', 'native', 'rm', 'three']);
    await side.show(['containers', 'rm', 'four']);
    await side.show(['snapshots', 'ls']);
  });
  t.regex(said, /\nfour - io\.containerd\.runc\.v2\n/);
  t.regex(said, /snapshot "one": already exists\nexit 1\n/);
  t.regex(said, /container "none" in namespace "NAMESPACE": not found\nexit 1\n/);
});

test('info', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const flags = [
      '--env',
      'A=b',
      '--cwd',
      '/etc',
      '--label',
      'k=v',
      '--annotation',
      'x.y=z',
      '--memory-limit',
      '1000000',
    ];
    await side.must([
      'containers',
      'create',
      ...flags,
      '--read-only',
      '--tty',
      '--net-host',
      image,
      'full',
      'sleep',
      '9',
    ]);
    await side.must(['containers', 'create', '--rootfs', side.rootfs(), 'dir', 'true']);
    await side.show(['containers', 'info', 'full']);
    await side.show(['containers', 'info', '--spec', 'full']);
    await side.show(['containers', 'info', 'dir']);
    await side.show(['containers', 'info', 'none']);
    await side.show(['containers', 'info']);
    await side.show(['containers', 'info', 'full'], { namespace: 'elsewhere' });
    await side.show(['containers', 'info', 'full'], { namespace: 'bad/name' });
    const info = JSON.parse((await side.ctr(['containers', 'info', 'full'])).stdout);
    side.note(`${info.UpdatedAt === info.CreatedAt} ${Math.abs(Date.parse(info.CreatedAt) - Date.now()) < 600_000}`);
    await side.must(['containers', 'label', 'full', 'more=yes']);
    const later = JSON.parse((await side.ctr(['containers', 'info', 'full'])).stdout);
    side.note(
      `${later.UpdatedAt > info.UpdatedAt} ${later.CreatedAt === info.CreatedAt} ${JSON.stringify(later.Labels)}`,
    );
  });
  t.regex(said, /"cgroupsPath": "\/NAMESPACE\/full"/);
  t.regex(said, /\ntrue true\n/);
  t.regex(said, /\ntrue true \{"[^}]*"k":"v","more":"yes"\}\n/);
  t.regex(said, /container "full" in namespace "elsewhere": not found\nexit 1\n/);
});

test('create from a spec, and run it', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.must(['containers', 'create', image, 'model', 'sh', '--', '-c', 'echo modelled']);
    const spec = JSON.parse((await side.ctr(['containers', 'info', '--spec', 'model'])).stdout);
    spec.process.args = ['/bin/sh', '-c', 'echo "$GREETING"; hostname'];
    spec.process.env.push('GREETING=from a file');
    spec.hostname = 'named';
    spec.root.path = side.rootfs();
    const file = join(side.dir, 'spec.json');
    writeFileSync(file, JSON.stringify(spec));
    await side.show(['containers', 'create', '--config', file, 'config']);
    await side.show(['tasks', 'start', 'config']);
    await side.show(['run', '--rm', '--config', file, 'ran']);
    await side.show(['containers', 'create', '--config', join(side.dir, 'none'), 'nofile']);
    writeFileSync(file, '{ nonsense');
    await side.show(['containers', 'create', '--config', file, 'badfile']);
    writeFileSync(file, '{}');
    await side.show(['run', '--rm', '--config', file, 'empty']);
    await side.show(['containers', 'ls']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /\nfrom a file\nnamed\nexit 0\n/);
});

test('checkpoint and restore', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box', ['sh', '-c', 'echo written > /written; while :; do sleep 0.05; done']);
    await side.exec('box', [], 'until test -s /written; do sleep 0.05; done');
    await side.show(['containers', 'checkpoint', 'box', 'checkpoint.local/box:plain']);
    await side.show(['containers', 'checkpoint', '--rw', '--image', 'box', 'checkpoint.local/box:rw']);
    await side.show(['containers', 'checkpoint', '--task', 'box', 'checkpoint.local/box:task']);
    await side.show(['containers', 'checkpoint', 'none', 'checkpoint.local/box:none']);
    await side.show(['containers', 'checkpoint', 'box']);
    await side.show(['tasks', 'ls']);
    await side.show(['images', 'ls', '-q']);
    await side.must(['tasks', 'rm', '-f', 'box']);
    await side.must(['containers', 'rm', 'box']);
    await side.show(['containers', 'restore', 'again', 'checkpoint.local/box:plain']);
    await side.show(['containers', 'restore', '--rw', 'again', 'checkpoint.local/box:rw']);
    await side.show(['containers', 'restore', '--live', 'live', 'checkpoint.local/box:rw']);
    await side.show(['containers', 'restore', 'never', 'checkpoint.local/box:never']);
    await side.show(['containers', 'ls']);
    await side.show(['tasks', 'ls']);
    await side.show(['snapshots', 'ls']);
    for (const id of ['again', 'live']) {
      const { code } = await side.ctr(['tasks', 'exec', '--exec-id', 'look', id, 'test', '-s', '/written']);
      side.note(`${id}: ${code}`);
    }
  });
  t.regex(said, /checkpoint\.local\/box:rw\n/);
});

test('what is in use is not deleted, and goes when it is not', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const file = join(side.dir, 'pid');
    await side.must(['run', '-d', '--pid-file', file, image, 'box', 'sleep', '1000']);
    side.hide(readFileSync(file, 'utf8'), 'PID');
    await side.show(['containers', 'rm', 'box']);
    await side.show(['namespaces', 'rm', side.namespace]);
    await side.show(['images', 'rm', '--sync', image]);
    await side.show(['tasks', 'ls']);
    await side.exec('box', [], 'cat /etc/motd');
    await side.show(['images', 'ls', '-q']);
    await side.show(['tasks', 'rm', '-f', 'box']);
    await side.show(['containers', 'rm', 'box']);
    await side.collect();
    await side.show(['containers', 'ls']);
    await side.show(['snapshots', 'ls']);
  });
  t.regex(said, /\nhello from the second layer\nheard\nexit 0\n/);
});
