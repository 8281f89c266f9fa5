/** What `ctr run` can be told of a container, and what it cannot run. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../helpers/command.ts';
import { busyboxLayer, imageLayout, writeOciArchive } from '../helpers/image.ts';
import { usePair } from '../helpers/pair.ts';
import { imageName } from '../helpers/side.ts';

const { test, both, ours } = usePair();

test('--env, --cwd, --mount, --read-only, --cap-drop, --hostname of the process', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const shared = join(side.dir, 'shared');
    mkdirSync(shared);
    writeFileSync(join(shared, 'file'), 'from outside\n');
    writeFileSync(join(side.dir, 'env'), 'ONE=1\nTWO=two words\n');
    await side.show([
      'run',
      '--rm',
      '--env',
      'A=b c',
      '--env',
      'FROM_IMAGE=no',
      image,
      'env',
      'sh',
      '-c',
      'env | grep -v SHLVL | busybox sort',
    ]);
    await side.show([
      'run',
      '--rm',
      '--env-file',
      join(side.dir, 'env'),
      image,
      'envfile',
      'sh',
      '-c',
      'echo "$ONE $TWO"',
    ]);
    await side.show(['run', '--rm', '--cwd', '/etc', image, 'cwd', 'pwd']);
    await side.show(['run', '--rm', '--cwd', '/made/up', image, 'cwdmade', 'pwd']);
    await side.show([
      'run',
      '--rm',
      '--mount',
      `type=bind,src=${shared},dst=/host,options=rbind:rw`,
      image,
      'mount',
      'sh',
      '-c',
      'cat /host/file; echo inside > /host/new',
    ]);
    side.note(readFileSync(join(shared, 'new'), 'utf8'));
    await side.show([
      'run',
      '--rm',
      '--mount',
      `type=bind,src=${shared},dst=/host,options=rbind:ro`,
      image,
      'mountro',
      'touch',
      '/host/x',
    ]);
    await side.show([
      'run',
      '--rm',
      '--mount',
      'type=tmpfs,dst=/mem,options=size=1m',
      image,
      'tmpfs',
      'sh',
      '-c',
      'grep /mem /proc/mounts',
    ]);
    await side.show([
      'run',
      '--rm',
      '--mount',
      `type=bind,src=${shared}/none,dst=/host,options=rbind`,
      image,
      'nosource',
      'true',
    ]);
    await side.show(['run', '--rm', '--mount', 'nonsense', image, 'badmount', 'true']);
    await side.show(['run', '--rm', '--read-only', image, 'ro', 'sh', '-c', 'touch /x; touch /dev/shm/y && echo shm']);
    await side.show(['run', '--rm', '--cap-drop', 'CAP_CHOWN', image, 'caps', 'busybox', 'chown', '5', '/etc/motd']);
    await side.show([
      'run',
      '--rm',
      '--privileged',
      image,
      'privileged',
      'sh',
      '-c',
      'mount -t tmpfs x /etc && echo mounted',
    ]);
    await side.show([
      'run',
      '--rm',
      image,
      'procs',
      'sh',
      '-c',
      'echo $$; hostname | wc -c; busybox ip link | grep -c mtu',
    ]);
    await side.show([
      'run',
      '--rm',
      '--device',
      '/dev/full',
      image,
      'device',
      'ls',
      '-d',
      '/dev/full',
      '/dev/null',
      '/dev/zero',
    ]);
    await side.show(['run', '--rm', '--seccomp', image, 'seccomp', 'sh', '-c', 'grep Seccomp: /proc/self/status']);
    await side.showLeft();
  });
  t.regex(said, /\nA=b c\nFROM_IMAGE=no\n/);
  t.regex(said, /\n1 two words\nexit 0\n/);
  t.regex(said, /pwd\n\/etc\nexit 0\n/);
  t.regex(said, /from outside\nexit 0\ninside\n/);
  t.regex(said, /touch: \/host\/x: Read-only file system\nexit 1\n/);
  t.regex(said, /shm\ntouch: \/x: Read-only file system\nexit 0\n/);
  t.regex(said, /Operation not permitted\nexit 1\n/);
  t.regex(said, /\nmounted\nexit 0\n/);
  t.regex(said, /Seccomp: 2\nexit 0\n/);
});

test('limits and cgroups', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const cgroups = (pid: number): string =>
      readFileSync(`/proc/${pid}/cgroup`, 'utf8')
        .split('\n')
        .map((line) => line.replace(/^\d+:/, ''))
        .filter((line) => /^(memory|pids|cpu):/.test(line))
        .sort()
        .join('\n');
    const plain = await side.running('plain');
    side.note(cgroups(plain));
    const limited = await side.running(
      'limited',
      ['sleep', '1000'],
      ['--memory-limit', '33554432', '--cpu-shares', '512', '--cpus', '0.5'],
    );
    side.note(cgroups(limited));
    side.note(readFileSync(`/sys/fs/cgroup/memory/${side.namespace}/limited/memory.limit_in_bytes`, 'utf8'));
    side.note(readFileSync(`/sys/fs/cgroup/cpu/${side.namespace}/limited/cpu.shares`, 'utf8'));
    side.note(readFileSync(`/sys/fs/cgroup/cpu/${side.namespace}/limited/cpu.cfs_quota_us`, 'utf8'));
    const placed = await side.running('placed', ['sleep', '1000'], ['--cgroup', `/${side.namespace}/elsewhere/here`]);
    side.note(cgroups(placed));
    for (const id of ['plain', 'limited', 'placed']) await side.show(['tasks', 'rm', '-f', id]);
    side.note(
      ['plain', 'limited', 'elsewhere/here']
        .map((path) => existsSync(`/sys/fs/cgroup/memory/${side.namespace}/${path}`))
        .join(),
    );
    // Whoever makes a cgroup's parents removes them; ours to do here, since runc does not.
    await run('sh', ['-c', `rmdir /sys/fs/cgroup/*/${side.namespace}/elsewhere`]);
  });
  t.regex(said, /memory:\/NAMESPACE\/plain\n/);
  t.regex(said, /\n33554432\n512\n50000\n/);
  t.regex(said, /memory:\/NAMESPACE\/elsewhere\/here\n/);
  t.regex(said, /\nfalse,false,false\n/);
});

test('the user of the image, and a user namespace', async (t) => {
  const said = await both(t, async (side) => {
    const archive = join(side.dir, 'games.tar');
    writeOciArchive(archive, imageLayout({ layers: [busyboxLayer], config: { User: 'games' } }), imageName);
    const image = await side.image(archive);
    await side.show(['run', '--rm', image, 'games', 'id']);
    await side.show([
      'run',
      '--rm',
      '--uidmap',
      '0:10000:65536',
      '--gidmap',
      '0:20000:65536',
      image,
      'mapped',
      'sh',
      '-c',
      'id; cat /proc/self/uid_map; stat -c "%u %g" /bin/busybox',
    ]);
    await side.show(['snapshots', 'ls']);
    await side.show(['run', '--rm', '--user', 'root', image, 'flag', 'id']);
    await side.showLeft();
  });
  t.regex(said, /uid=5\(games\) gid=60\(games\)/);
});

test('--rootfs runs a directory', async (t) => {
  const said = await both(t, async (side) => {
    const rootfs = side.rootfs();
    await side.show(['run', '--rm', '--rootfs', rootfs, 'dir', '/bin/sh', '-c', 'echo hello > /made; /bin/id -u']);
    side.note(readFileSync(join(rootfs, 'made'), 'utf8'));
    await side.show(['run', '--rm', '--rootfs', join(side.dir, 'none'), 'nodir', 'true']);
    await side.show(['run', '--rm', '--rootfs', '--read-only', rootfs, 'readonly', '/bin/touch', '/x']);
    await side.showLeft();
  });
  t.regex(said, /\n0\nexit 0\nhello\n/);
});

test('what cannot run says why and leaves nothing', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', '--rm', image, 'nobinary', 'no-such-program']);
    await side.showLeft();
    await side.show(['run', image, 'nopath', '/no/such/program']);
    await side.show(['containers', 'rm', 'nopath']);
    await side.show(['run', '--rm', image, 'directory', '/etc']);
    await side.show(['run', '--rm', image, 'notexec', '/etc/passwd']);
    await side.show(['run', '-d', image, 'detached', 'no-such-program']);
    await side.show(['containers', 'ls', '-q']);
    await side.show(['tasks', 'ls', '-q']);
    await side.show(['containers', 'rm', 'detached']);
    await side.show(['run', '--rm', 'docker.io/library/none:1', 'noimage', 'true']);
    await side.show(['run', '--rm', image, 'bad id', 'true']);
    await side.show(['run', '--rm', image, 'x'.repeat(77), 'true']);
    await side.show(['run', '--rm', image]);
    await side.show(['run', '--rm', '--runtime', 'io.containerd.none.v1', image, 'noruntime', 'true']);
    await side.show(['run', '--rm', '--runtime', 'none', image, 'badruntime', 'true']);
    await side.show(['run', '--rm', '--runtime', '/no/such/shim', image, 'noshim', 'true']);
    await side.show(['run', '--rm', '--runtime', '/bin/false', image, 'falseshim', 'true']);
    await side.show(['run', '--rm', '--runc-binary', '/no/such/runc', image, 'norunc', 'true']);
    await side.show(['run', '--rm', '--runc-binary', 'false', image, 'falserunc', 'true']);
    await side.show(['run', '--rm', '--snapshotter', 'none', image, 'nosnapshotter', 'true']);
    await side.show(['run', '--rm', '--with-ns', 'network:/no/such/file', image, 'nons', 'true']);
    side.note(`shims ${side.shims('nobinary').length}, bundle ${existsSync(side.bundle('nobinary'))}`);
    await side.showLeft();
  });
  t.regex(said, /exec: "no-such-program": executable file not found in \$PATH: unknown\nexit 1\n/);
  t.regex(said, /stat \/no\/such\/program: no such file or directory: unknown\nexit 1\n/);
  t.regex(said, /image "docker.io\/library\/none:1": not found\nexit 1\n/);
});

test('what is no shim is refused, and said to be none', async (t) => {
  // containerd says how the connection to what was printed fails, and takes a relative path for the directory it stands in.
  const said = await ours(t, async (side) => {
    const image = await side.image();
    for (const runtime of ['./relative/shim', '/bin/true', '/bin/echo']) {
      await side.show(['run', '--rm', '--runtime', runtime, image, 'noshim', 'true']);
    }
    await side.showLeft();
  });
  t.regex(said, /invalid runtime name \.\/relative\/shim, .*: unknown\nexit 1\n/);
  t.regex(said, /start failed: shim printed no address: unknown\nexit 1\n/);
  t.regex(said, /start failed: shim printed "-namespace .* start", which is no address: unknown\nexit 1\n/);
});

test('another runtime, another snapshotter', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', '--rm', '--runtime', '/usr/bin/containerd-shim-runc-v2', image, 'path', 'echo', 'by path']);
    if ((await run('sh', ['-c', 'command -v crun'])).code === 0) {
      await side.show(['run', '--rm', '--runc-binary', 'crun', image, 'crun', 'echo', 'by crun']);
    }
    await side.show(['run', '--rm', '--snapshotter', 'native', image, 'copied', 'cat', '/etc/motd']);
    await side.show(['snapshots', '--snapshotter', 'native', 'ls']);
    await side.showLeft();
  });
  t.regex(said, /by path\nexit 0\n/);
  t.regex(said, /hello from the second layer\nexit 0\n/);
});
