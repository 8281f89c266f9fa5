/** `ctr run`, as an operator types it. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { run } from '../helpers/command.ts';
import { busyboxLayer, imageLayout, writeOciArchive } from '../helpers/image.ts';
import { usePair } from '../helpers/pair.ts';
import { imageName, type Side } from '../helpers/side.ts';

const { test, both, ours } = usePair();

/** What is there when nothing is. */
async function left(side: Side): Promise<void> {
  await side.show(['containers', 'ls']);
  await side.show(['tasks', 'ls']);
  await side.show(['snapshots', 'ls']);
}

test('run --rm shows both streams and the exit, and leaves nothing', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', '--rm', image, 'three', 'sh', '-c', 'echo out; echo err >&2; exit 3']);
    // The input ends only after something of it was heard: a ctr of this age forgets an end that comes before the task.
    await side.talk(
      ['run', '--rm', image, 'fed', 'sh', '-c', 'echo ready; cat; echo end'],
      [
        { after: /ready/, input: 'typed\n' },
        { after: /typed/, input: 'end' },
      ],
    );
    const kill = (): unknown => side.must(['tasks', 'kill', '-s', 'SIGKILL', 'killed']);
    await side.talk(
      ['run', '--rm', image, 'killed', 'sh', '-c', 'echo ready; sleep 1000'],
      [{ after: /ready/, input: kill }],
    );
    await side.talk(
      ['run', '--rm', image, 'default'],
      [{ after: /^/, input: 'echo $0 $FROM_IMAGE; cat /etc/motd; ls -d /tmp 2>&1; exit 1\n' }],
    );
    side.note(`bundle ${existsSync(side.bundle('three'))}, shims ${side.shims('three').length}`);
    await left(side);
  });
  t.regex(said, /\nout\nerr\nexit 3\n/);
  t.regex(said, /\nready\ntyped\nend\nexit 0\n/);
  t.regex(said, /\nready\nexit 137\n/);
  t.regex(said, /\nsh yes\nhello from the second layer\nls: \/tmp: No such file or directory\nexit 1\n/);
  t.regex(said, /bundle false, shims 0\n/);
});

test('run without --rm keeps the container and its stopped task away', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', image, 'kept', 'sh', '-c', 'echo done']);
    await side.show(['run', image, 'kept', 'true']);
    await left(side);
    await side.show(['tasks', 'start', 'kept']);
    await side.show(['containers', 'rm', 'kept']);
    await left(side);
  });
  t.regex(said, /snapshot "kept": already exists\nexit 1\n/);
  t.regex(said, /\$ ctr tasks start kept\ndone\nexit 0\n/);
});

test('run -d, --pid-file, --label, and what is refused while it runs', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const file = join(side.dir, 'pid');
    await side.show(['run', '-d', '--pid-file', file, '--label', 'a=b', image, 'bg', 'sleep', '1000']);
    const pid = readFileSync(file, 'utf8');
    side.hide(pid, 'PID');
    await side.show(['tasks', 'ls']);
    await side.show(['containers', 'ls', 'labels.a==b']);
    await side.show(['containers', 'rm', 'bg']);
    await side.show(['tasks', 'rm', 'bg']);
    await side.show(['run', '-d', image, 'bg', 'true']);
    await side.show(['tasks', 'start', 'bg']);
    await side.show(['snapshots', 'rm', 'bg']);
    await side.show(['run', '-d', '--rm', image, 'both', 'true']);
    await side.show(['tasks', 'kill', '-s', 'SIGKILL', 'bg']);
    await side.show(['tasks', 'rm', 'bg']);
    await side.show(['containers', 'rm', 'bg']);
    side.note(
      `bundle ${existsSync(side.bundle('bg'))}, shims ${side.shims('bg').length}, process ${existsSync(`/proc/${pid}`)}`,
    );
    await left(side);
  });
  t.regex(said, /\nbg PID RUNNING\n/);
  t.regex(said, /bundle false, shims 0, process false\n/);
});

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
      'echo $$; ls /proc | grep -c "^[0-9]"; hostname | wc -c; busybox ip link | grep -c mtu',
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
    await left(side);
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
    await left(side);
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
    await left(side);
  });
  t.regex(said, /\n0\nexit 0\nhello\n/);
});

test('--tty gives a terminal, its size, and what is typed', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.terminal(['run', '--rm', '--tty', image, 'tty', 'sh', '-c', 'test -t 0 && echo yes; tty; exit 5']);
    await side.terminal(
      [
        'run',
        '--rm',
        '--tty',
        image,
        'typed',
        'sh',
        '-c',
        'stty -echo; echo ready; read line; until stty size 2>/dev/null | grep -v "^0"; do :; done; echo "got $line"',
      ],
      [{ after: /ready/, input: 'a line\r' }],
    );
    const interrupted = 'trap "echo interrupted; exit 7" INT; echo ready; while :; do sleep 0.05; done';
    await side.terminal(
      ['run', '--rm', '--tty', image, 'ctrl-c', 'sh', '-c', interrupted],
      [{ after: /ready/, input: '\x03' }],
    );
    await side.terminal(
      ['run', '--rm', '--tty', image, 'ctrl-d', 'sh', '-c', 'echo ready; cat; exit 6'],
      [{ after: /ready/, input: 'x\r\x04' }],
    );
    await left(side);
  });
  t.regex(said, /yes\n\/dev\/pts\/0\nexit 5\n/);
  t.regex(said, /ready\n24 80\ngot a line\nexit 0\n/);
  t.regex(said, /interrupted\nexit 7\n/);
  t.regex(said, /exit 6\n/);
});

test('--null-io, --log-uri and --fifo-dir', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', '--rm', '--null-io', image, 'null', 'sh', '-c', 'echo unheard; exit 2']);
    const log = join(side.dir, 'log', 'out.txt');
    await side.show([
      'run',
      '--rm',
      '--log-uri',
      `file://${log}`,
      image,
      'logged',
      'sh',
      '-c',
      'echo out; echo err >&2; exit 2',
    ]);
    side.note(existsSync(log) ? readFileSync(log, 'utf8').split('\n').sort().join(' ') : 'no log');
    await side.show(['run', '--rm', '--log-uri', 'file://relative', image, 'relative', 'true']);
    await side.show(['run', '--rm', '--log-uri', 'nonsense://x', image, 'scheme', 'true']);
    await side.show(['run', '--rm', '--fifo-dir', join(side.dir, 'fifos'), image, 'fifos', 'echo', 'through a fifo']);
    await left(side);
  });
  t.regex(said, /\n err out\n/);
});

test('a hundred million bytes', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const script =
      'ctr --address "$1" -n "$2" run --rm "$3" loud sh -c "busybox yes 0123456789abcdef | head -c 100000000" | sha256sum';
    const { code, stdout, stderr } = await run('sh', ['-c', script, 'sh', side.server.address, side.namespace, image]);
    side.note(`${code} ${stdout}${stderr}`);
    const file = join(side.dir, 'out');
    await side.show([
      'run',
      '--rm',
      '--log-uri',
      `file://${file}`,
      image,
      'file',
      'sh',
      '-c',
      'busybox yes 0123456789abcdef | head -c 100000000',
    ]);
    side.note((await run('sha256sum', [file])).stdout);
    await left(side);
  });
  const sum = createHash('sha256').update('0123456789abcdef\n'.repeat(5_882_353).slice(0, 100_000_000)).digest('hex');
  t.is(said.split(sum).length, 3, said);
});

test('what cannot run says why and leaves nothing', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    await side.show(['run', '--rm', image, 'nobinary', 'no-such-program']);
    await left(side);
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
    await left(side);
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
    await left(side);
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
    await left(side);
  });
  t.regex(said, /by path\nexit 0\n/);
  t.regex(said, /hello from the second layer\nexit 0\n/);
});

test('signals to a ctr that runs in the foreground reach the container', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const script = 'trap "echo winch" WINCH; trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.05; done';
    const child = side.spawn(['run', '--rm', image, 'fg', 'sh', '-c', script]);
    const lines = new Set<string>();
    createInterface({ input: child.stdout! }).on('line', (line) => {
      lines.add(line);
      if (line === 'winch') child.kill('SIGTERM');
    });
    // ctr takes to passing signals on some time after the container has begun; one that would not end it tells when.
    const knocking = setInterval(() => lines.has('ready') && !lines.has('winch') && child.kill('SIGWINCH'), 20);
    const [code] = await once(child, 'close');
    clearInterval(knocking);
    side.note(`${[...lines].join(' ')} exit ${code}`);
    await left(side);
  });
  t.regex(said, /ready winch caught exit 9\n/);
});

test('a container that takes more memory than it may', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const events = await side.events();
    const eat = 'dd if=/dev/zero of=/dev/null bs=200M count=1';
    await side.show([
      'run',
      '--rm',
      '--memory-limit',
      '16777216',
      image,
      'hungry',
      'sh',
      '-c',
      `${eat}; echo the child went with $?`,
    ]);
    const heard = await events.until(new RegExp(`${side.namespace} /tasks/oom `));
    side.note(heard);
    await side.show(['run', '--rm', '--memory-limit', '16777216', image, 'starved', 'sh', '-c', `exec ${eat}`]);
    await events.until(new RegExp(`${side.namespace} /tasks/oom .*starved`));
    await left(side);
  });
  t.regex(said, /the child went with 137\nKilled\nexit 0\n/);
  t.regex(said, /\/tasks\/oom {"container_id":"hungry"}\n/);
  t.regex(said, /exec dd .*\n.*exit 137\n/);
});
