/** `ctr version` and `ctr plugins ls`: what a client learns of a daemon before it asks for anything. */
import test from 'ava';
import { useBoth } from '../helpers/both.ts';

const both = useBoth(test);

test.serial('version', async (t) => {
  const { ours, theirs } = await both(t, 'ctr version', {
    // Containerd's is its package's; the client warns of the difference to its own.
    plain: (text) =>
      text
        .replace(/WARNING: .* mismatch\n/g, '')
        .replace(
          /(Server:\n *Version: +).*\n( *Revision: +).*\n( *UUID: +)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n/,
          '$1VERSION\n$2REVISION\n$3UUID\n',
        ),
  });
  t.regex(ours, /Version: +VERSION\n +Revision: +REVISION\n +UUID: +UUID\n/);
  t.is(ours, theirs);
});

test.serial('the server is the same one at each call, and says the series whose API it speaks', async (t) => {
  const ask = async (): Promise<string> => (await both.daemon.ctr(['version'])).stdout.split('Server:')[1]!;
  const first = await ask();
  t.regex(first, /Version: +2\.0\.0\+troupe\.\d/);
  t.is(await ask(), first);
});

test.serial('plugins: the table, and what of it filters choose', async (t) => {
  const { ours, theirs } = await both(
    t,
    `
    ctr plugins ls type==io.containerd.snapshotter.v1,id==overlayfs
    ctr plugins ls id==native
    ctr plugins ls id==overlayfs id==native
    ctr plugins ls id==walking
    ctr plugins ls type==io.containerd.runtime.v2
    ctr plugins ls type==io.containerd.content.v1
    ctr plugins ls type==io.containerd.metadata.v1 type==io.containerd.gc.v1 type==io.containerd.event.v1 | sort
    ctr plugins ls type~=internal,id==opt
    ctr plugins ls -q type==io.containerd.grpc.v1 | grep -vx -e transfer -e streaming | sort
    ctr plugins ls -q type==io.containerd.service.v1 | sort
    ctr plugins ls id==nothing
    ctr plugins ls -q id==nothing
    ctr plugins ls bad==
    ctr plugins ls 'id='
    ctr plugins ls '('
    ctr plugins ls -d id==overlayfs | grep -v Capabilities | tr -s ' '
    ctr plugins ls -d type==io.containerd.content.v1 | grep root | tr -s ' '
  `,
  );
  t.regex(ours, /io\.containerd\.runtime\.v2 {2}task {2}linux\/\w+ {2}ok\n/);
  t.is(ours, theirs);
});

test.serial(
  'plugins: containerd has the same, but for drivers of file systems and what it keeps for clients of 1.x',
  async (t) => {
    const ids = async (args: string): Promise<{ ours: string[]; theirs: string[] }> => {
      const { ours, theirs } = await both(t, `ctr plugins ls ${args} | awk 'NR > 1 { print $1 "." $2, $NF }'`);
      return { ours: ours.split('\n').slice(1, -1), theirs: theirs.split('\n').slice(1, -1) };
    };
    const { ours, theirs } = await ids('');
    t.true(ours.length > 30);
    t.deepEqual(
      // Where nothing may be mounted, overlayfs is skipped.
      ours.filter((line) => !/ (?:ok|skip)$/.test(line)),
      [],
    );
    if (theirs.length === ours.length) return;
    const missing = theirs
      .map((line) => line.split(' ')[0]!)
      .filter((id) => !ours.some((line) => line.startsWith(`${id} `)));
    t.deepEqual(missing.sort(), [
      'io.containerd.internal.v1.restart',
      'io.containerd.runtime.v1.linux',
      'io.containerd.snapshotter.v1.aufs',
      'io.containerd.snapshotter.v1.btrfs',
      'io.containerd.snapshotter.v1.devmapper',
      'io.containerd.snapshotter.v1.zfs',
    ]);
  },
);
