/** What a daemon refuses to start on, and leaves as it was. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { MNT_DETACH, mount, unmountAll } from 'troupe/sys';
import { type Outcome, run } from '../helpers/command.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { needing } from '../helpers/privilege.ts';
import { whyNoContainers } from '../helpers/pair.ts';
import { Peer } from '../helpers/peer.ts';
import { busyboxLayer, imageLayout, writeOciArchive } from '../helpers/image.ts';
import { mountsBelow, useScratch } from '../helpers/scratch.ts';
import { imageName } from '../helpers/side.ts';

const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));

/** A daemon that is to end by itself. */
function start(dir: string, paths: { address?: string; root?: string; state?: string }): Promise<Outcome> {
  const { address = join(dir, 't.sock'), root = join(dir, 'root'), state = join(dir, 'state') } = paths;
  const config = join(dir, 'empty.toml');
  writeFileSync(config, 'version = 3\n');
  return run(launcher, ['--config', config, '--address', address, '--root', root, '--state', state]);
}

/** Everything about a tree that a careless daemon could change. */
function portrait(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(dir, name);
      const stat = lstatSync(path);
      const inside = stat.isFile()
        ? createHash('sha256').update(readFileSync(path)).digest('hex')
        : stat.isSymbolicLink()
          ? readlinkSync(path)
          : '';
      return [name, stat.ino, stat.mode, stat.uid, stat.gid, stat.size, stat.mtimeMs, stat.ctimeMs, inside].join(' ');
    });
}

test.serial(
  'a second daemon on the root, the state or the socket of one that runs is refused, and the first goes on',
  async (t) => {
    const daemon = await useDaemon(t);
    const dir = useScratch(t, 'second');
    for (const paths of [{ root: daemon.root }, { state: daemon.state }]) {
      const { code, stdout, stderr } = await start(dir, paths);
      t.is(code, 1);
      t.regex(
        stdout + stderr,
        new RegExp(`${Object.values(paths)[0]}.* is in use by another daemon: failed precondition`),
      );
    }
    const { code, stdout, stderr } = await start(dir, { address: daemon.address });
    t.is(code, 1);
    t.regex(stdout + stderr, new RegExp(`in use, bind '${daemon.address}.* listens there`));
    t.is((await daemon.ctr(['namespaces', 'create', 'still'])).code, 0);
    t.regex((await daemon.ctr(['namespaces', 'ls', '-q'])).stdout, /still/);
  },
);

test.serial('a socket path that cannot be is refused by its name, and what is there stays', async (t) => {
  const dir = useScratch(t, 'socket');
  const long = join(dir, 'x'.repeat(108), 't.sock');
  const file = join(dir, 'file');
  writeFileSync(file, 'precious');
  const folder = join(dir, 'folder');
  mkdirSync(folder);
  const link = join(dir, 'link');
  symlinkSync(file, link);
  const other = join(dir, 'other.sock');
  const server = createServer((socket) => socket.on('error', () => {}).end('somebody else'));
  await new Promise<void>((resolve) => server.listen(other, resolve));
  t.teardown(() => server.close());
  for (const [address, words] of [
    [long, /can have 107/],
    [file, /not a socket/],
    [folder, /not a socket/],
    [link, /not a socket/],
    [other, /in use/],
  ] as const) {
    const { code, stdout, stderr } = await start(dir, { address });
    t.is(code, 1, address);
    t.regex(stdout + stderr, words);
    t.true((stdout + stderr).includes(address), address);
  }
  t.is(readFileSync(file, 'utf8'), 'precious');
  t.true(lstatSync(folder).isDirectory());
  t.true(lstatSync(link).isSymbolicLink());
  t.true(lstatSync(other).isSocket());
});

test.serial('the socket that a killed daemon left is taken over', async (t) => {
  const daemon = await useDaemon(t);
  await daemon.stop('SIGKILL');
  t.true(existsSync(daemon.address));
  await daemon.start();
  t.is((await daemon.ctr(['version'])).code, 0);
});

const reason = whyNoContainers() ?? (containerdIs16() ? undefined : 'no containerd 1.6 is installed');
const compared = reason === undefined ? test.serial : test.serial.skip;

/** Asked at once: ava takes no test that is declared after an await. */
function containerdIs16(): boolean {
  const { stdout } = spawnSync('containerd', ['--version'], { encoding: 'utf8' });
  return / v?1\.6\./.test(stdout ?? '');
}

compared(
  `the root and state of a containerd are refused, and untouched to the byte${reason === undefined ? '' : ` (skipped: ${reason})`}`,
  async (t) => {
    t.timeout(120_000);
    const dir = useScratch(t, 'foreign');
    const containerd = new Peer(join(dir, 'containerd'));
    await containerd.start();
    t.teardown(() => containerd.stop());
    const archive = join(dir, 'image.tar');
    writeOciArchive(archive, imageLayout({ layers: [busyboxLayer] }), imageName);
    const namespace = `f${process.pid}`;
    const ctr = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await run('ctr', ['-a', containerd.address, '-n', namespace, ...args]);
      if (code !== 0) throw new Error(stderr);
    };
    await ctr('images', 'import', archive);
    await ctr('run', '-d', imageName, 'box', 'sleep', '1000');
    await ctr('snapshots', 'prepare', 'mine');
    t.teardown(async () => {
      await containerd.stop();
      await containerd.start();
      await ctr('tasks', 'rm', '-f', 'box');
      await run('sh', ['-c', `rmdir /run/containerd/runc/${namespace} /sys/fs/cgroup/*/${namespace}`]);
    });
    // Nobody else writes while it is looked at; the container and its shim live on.
    await containerd.stop('SIGKILL');
    const { root, state } = containerd;
    const before = [
      portrait(root),
      portrait(join(state, 'io.containerd.runtime.v2.task')),
      mountsBelow(containerd.dir),
    ];
    const own = join(dir, 'own');
    mkdirSync(own);
    for (const [paths, words] of [
      [{ root, state }, /\broot \S+ is not ours/],
      [{ root }, /holds .*io\.containerd/],
      [{ state }, /holds .*io\.containerd/],
    ] as const) {
      const { code, stdout, stderr } = await start(own, paths);
      t.is(code, 1);
      t.regex(stdout + stderr, /it has no \.troupe/);
      t.regex(stdout + stderr, words);
    }
    t.deepEqual(
      [portrait(root), portrait(join(state, 'io.containerd.runtime.v2.task')), mountsBelow(containerd.dir)],
      before,
    );
    t.false(existsSync(join(own, 't.sock')));
  },
);

test.serial('records that were lost are said to be so, and what they name is not cleared away', async (t) => {
  const daemon = await useDaemon(t);
  t.is((await daemon.ctr(['namespaces', 'create', 'kept'])).code, 0);
  await daemon.stop();
  const database = join(daemon.root, 'troupe.records.v1.records/records.db');
  const good = readFileSync(database);
  const blobs = join(daemon.root, 'io.containerd.content.v1.content/blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const blob = join(blobs, 'f'.repeat(64));
  // Named by no record, as all are when there are none.
  writeFileSync(blob, 'precious');
  for (const damage of [() => truncateSync(database), () => rmSync(database)]) {
    damage();
    await daemon.start();
    const { code, stderr } = await daemon.ctr(['namespaces', 'ls']);
    t.is(code, 1);
    t.regex(
      stderr,
      /records\.db: it is empty, and was not: put a copy in its place, or remove \S+records\.db\.made .*: unavailable$/m,
    );
    await daemon.stop();
    t.is(readFileSync(blob, 'utf8'), 'precious');
  }
  writeFileSync(database, good);
  await daemon.start();
  t.regex((await daemon.ctr(['namespaces', 'ls', '-q'])).stdout, /^kept$/m);
});

needing('mount')('a root that will not survive a reboot is warned about', async (t) => {
  const base = useScratch(t, 'memory');
  mount('tmpfs', base, 'tmpfs', 0, 'size=512m');
  t.teardown(() => unmountAll(base, MNT_DETACH));
  const daemon = await useDaemon(t, { dir: join(base, 'daemon') });
  const warnings = daemon.log.filter((line) => line.includes('level=warn') && line.includes(' lies on '));
  t.is(warnings.length, 1);
  t.true(warnings[0]!.includes(`root ${daemon.root} lies on tmpfs: nothing on it survives a reboot`), warnings[0]);
});

test.serial('directories that may not be written are said to be so', async (t) => {
  const dir = useScratch(t, 'readonly');
  const file = join(dir, 'file');
  writeFileSync(file, '');
  chmodSync(file, 0o600);
  for (const paths of [{ root: file }, { state: file }, { root: join(file, 'below') }, { root: '/proc/none' }]) {
    const { code, stdout, stderr } = await start(dir, paths);
    t.is(code, 1);
    t.true((stdout + stderr).includes(Object.values(paths)[0]!), stdout + stderr);
  }
  t.is(readFileSync(file, 'utf8'), '');
});
