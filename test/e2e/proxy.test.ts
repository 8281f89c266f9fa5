/** Proxy plugins: work done in another process over gRPC. It may come late, die, or hang; that concerns those who call it, and nobody else. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { Daemon, useDaemon } from '../helpers/daemon.ts';
import { imageLayout, writeOciArchive } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';
import { plugins, trouped, useClient } from '../helpers/trouped.ts';

const gcOff = '[plugins."troupe.records.v1.records"]\nmutation_threshold = 0\nstartup_delay = "24h"\n';
const far = (address: string, more = '') => `version = 3
[proxy_plugins.far]
type = "snapshot"
address = "${address}"
[plugins."io.containerd.snapshotter.v1.far"]
snapshotter = "native"
${more}`;

/** The other side: a daemon whose snapshots are somebody else's. Not started yet. */
function useRemote(t: ExecutionContext): Daemon {
  const remote = new Daemon(useScratch(t, 'remote'), { config: `version = 3\n${gcOff}` });
  t.teardown(async () => {
    await remote.stop();
  });
  return remote;
}

const keysOf = async (daemon: Daemon): Promise<string[]> => {
  const { stdout } = await daemon.ctr(['snapshots', '--snapshotter', 'native', 'ls']);
  return stdout
    .split('\n')
    .slice(1)
    .map((line) => line.split(' ')[0]!)
    .filter((key) => key !== '')
    .sort();
};

/** Accepts, and never says a word. */
async function useSilence(t: ExecutionContext): Promise<string> {
  const address = join(useScratch(t, 'silent'), 's.sock');
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => undefined).resume();
  });
  await new Promise<void>((resolve) => server.listen(address, resolve));
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return address;
}

rootTest('snapshots of a remote snapshotter: late, through its death and back, and through a reload', async (t) => {
  t.timeout(300_000);
  const remote = useRemote(t);
  // A view that nothing refers to is garbage, and a collection follows each removal soon.
  const daemon = await useDaemon(t, { config: far(remote.address, gcOff) });
  const snapshots = (...args: string[]) => daemon.ctr(['snapshots', '--snapshotter', 'far', ...args]);

  // Nothing is there yet: its callers are told, everybody else is served.
  t.is((await plugins(daemon)).find(({ id }) => id === 'io.containerd.snapshotter.v1.far')?.state, 'ready');
  const down = await snapshots('prepare', 'early');
  t.regex(down.stderr, new RegExp(`proxy plugin "far" at ${remote.address}: .*: unavailable`));
  t.is((await daemon.ctr(['snapshots', '--snapshotter', 'native', 'prepare', 'near'])).code, 0);
  t.regex((await daemon.ctr(['plugins', 'ls', '-d', 'id==far'])).stdout, new RegExp(`address +${remote.address}`));

  await remote.start();
  const prepared = await snapshots('prepare', 'one');
  t.is(prepared.code, 0, prepared.stderr);
  t.deepEqual((await keysOf(remote)).length, 1);
  t.regex((await keysOf(remote))[0]!, /^active-\d+$/);
  const { stdout: mounts } = await snapshots('mounts', join(daemon.dir, 'mnt'), 'one');
  const source = /(\S+\/snapshots\/\d+) /.exec(mounts)![1]!;
  t.true(source.startsWith(remote.root));
  writeFileSync(join(source, 'file'), 'text');
  t.is((await snapshots('commit', 'layer', 'one')).code, 0);
  t.regex((await keysOf(remote))[0]!, /^\d+$/);
  t.regex(
    (await trouped(daemon, 'plugins', 'reload', '--force', 'io.containerd.snapshotter.v1.far')).stdout,
    /: reloaded \(generation 2/,
  );
  t.is((await snapshots('prepare', 'two', 'layer')).code, 0);
  t.is((await snapshots('view', 'seen', 'layer')).code, 0);
  t.regex((await snapshots('info', 'two')).stdout, /"Parent": "layer"/);
  const api = useClient(t, daemon, SnapshotsDefinition);
  t.true((await api.usage({ snapshotter: 'far', key: 'layer' })).size >= 4n);

  // It dies, and comes back with what it had.
  await remote.stop('SIGKILL');
  t.not((await snapshots('prepare', 'three', 'layer')).code, 0);
  t.is((await daemon.ctr(['snapshots', '--snapshotter', 'native', 'rm', 'near'])).code, 0);
  // A removal is a record first: what it leaves over there goes when the other side is back.
  t.is((await snapshots('rm', 'seen')).code, 0);
  await remote.start();
  t.is((await snapshots('prepare', 'three', 'layer')).code, 0);
  t.not((await snapshots('rm', 'layer')).code, 0);
  for (const key of ['three', 'two', 'layer']) t.is((await snapshots('rm', key)).code, 0, key);
  await api.cleanup({ snapshotter: 'far' });
  t.deepEqual(await keysOf(remote), []);
});

rootTest('what is half done when the daemon dies is settled when it is back', async (t) => {
  t.timeout(300_000);
  const remote = await useRemote(t).start();
  const dir = useScratch(t, 'daemon');
  // Between the other side's answer and our record; and between our record and the other side's removal.
  const first = await useDaemon(t, {
    dir,
    config: far(remote.address),
    env: { TROUPE_FAILPOINTS: 'snapshots.commit.record=kill' },
  });
  const committing = await first.ctr(['snapshots', '--snapshotter', 'far', 'prepare', 'one']);
  t.is(committing.code, 0, committing.stderr);
  t.not((await first.ctr(['snapshots', '--snapshotter', 'far', 'commit', 'layer', 'one'])).code, 0);
  await first.exited;
  const [name] = await keysOf(remote);
  t.regex(name!, /^\d+$/, 'committed over there, active here');

  const second = await useDaemon(t, {
    dir,
    config: far(remote.address),
    env: { TROUPE_FAILPOINTS: 'snapshots.remove.directory=kill' },
  });
  const mounts = await second.ctr(['snapshots', '--snapshotter', 'far', 'mounts', join(dir, 'mnt'), 'one']);
  t.regex(mounts.stderr, /was committed when the daemon died: commit it again, or remove it: failed precondition/);
  t.is((await second.ctr(['snapshots', '--snapshotter', 'far', 'commit', 'layer', 'one'])).code, 0);
  t.deepEqual(await keysOf(remote), [name]);
  t.not((await second.ctr(['snapshots', '--snapshotter', 'far', 'rm', 'layer'])).code, 0);
  await second.exited;
  t.deepEqual(await keysOf(remote), [name]);

  const third = await useDaemon(t, { dir, config: far(remote.address) });
  await useClient(t, third, SnapshotsDefinition).cleanup({ snapshotter: 'far' });
  t.deepEqual(await keysOf(remote), []);
});

rootTest('an image unpacks onto a remote snapshotter, and a container could run from it', async (t) => {
  t.timeout(300_000);
  const remote = await useRemote(t).start();
  const daemon = await useDaemon(t, { config: far(remote.address) });
  const archive = join(daemon.dir, 'image.tar');
  const layout = imageLayout({
    layers: [
      (dir) => writeFileSync(join(dir, 'a'), 'x'),
      (dir) => {
        mkdirSync(join(dir, 'd'));
        writeFileSync(join(dir, 'd/b'), 'y');
      },
    ],
  });
  writeOciArchive(archive, layout, 'example.test/far:1');
  const imported = await daemon.ctr(['images', 'import', '--snapshotter', 'far', archive]);
  t.is(imported.code, 0, imported.stderr);
  const target = join(daemon.dir, 'mnt');
  mkdirSync(target);
  const mounted = await daemon.ctr(['images', 'mount', '--snapshotter', 'far', 'example.test/far:1', target]);
  t.is(mounted.code, 0, mounted.stderr);
  try {
    t.deepEqual(readdirSync(target).sort(), ['a', 'd']);
  } finally {
    t.is((await daemon.ctr(['images', 'unmount', '--rm', '--snapshotter', 'far', target])).code, 0);
  }
  t.is((await keysOf(remote)).length, 2);
});

rootTest('a proxy that hangs keeps its own callers, until their time is up, and nobody else', async (t) => {
  t.timeout(300_000);
  const address = await useSilence(t);
  const patience = 'deadline = "1s"\nlong_deadline = "3s"\n';
  const daemon = await useDaemon(t, { config: far(address, `${patience}${gcOff}`) });
  const api = useClient(t, daemon, SnapshotsDefinition);
  const hanging = api.prepare({ snapshotter: 'far', key: 'one', parent: '', labels: {} }).then(
    () => 'answered',
    (error: Error) => error.message,
  );
  const native = (...args: string[]) => daemon.ctr(['snapshots', '--snapshotter', 'native', ...args]);
  t.is((await native('prepare', 'near')).code, 0);
  t.is((await native('rm', 'near')).code, 0);
  t.is((await daemon.ctr(['plugins', 'ls'])).code, 0);
  t.regex(await hanging, new RegExp(`proxy plugin "far" at ${address}: .*: deadline exceeded`));
  // A client's own deadline holds when it is sooner.
  await t.throwsAsync(api.prepare({ snapshotter: 'far', key: 'two', parent: '', labels: {} }, { timeoutMs: 100 }), {
    code: 'DeadlineExceeded',
    message: /^(?!proxy plugin)/,
  });
});

rootTest('what a proxy that hangs is to remove does not keep others from theirs', async (t) => {
  t.timeout(300_000);
  const remote = await useRemote(t).start();
  const patience = 'deadline = "60s"\nlong_deadline = "60s"\n';
  const daemon = await useDaemon(t, { config: far(remote.address, `${patience}${gcOff}`) });
  const api = useClient(t, daemon, SnapshotsDefinition);
  t.is((await daemon.ctr(['snapshots', '--snapshotter', 'far', 'prepare', 'one'])).code, 0);
  t.is((await daemon.ctr(['snapshots', '--snapshotter', 'native', 'prepare', 'near'])).code, 0);
  process.kill(remote.pid, 'SIGSTOP');
  t.teardown(() => {
    if (remote.pid !== 0) process.kill(remote.pid, 'SIGCONT');
  });
  const removing = api.remove({ snapshotter: 'far', key: 'one' });
  const directory = join(daemon.root, 'io.containerd.snapshotter.v1.native/snapshots');
  t.is(readdirSync(directory).length, 1);
  await api.remove({ snapshotter: 'native', key: 'near' });
  await api.cleanup({ snapshotter: 'native' });
  t.deepEqual(readdirSync(directory), []);
  process.kill(remote.pid, 'SIGCONT');
  await removing;
  t.deepEqual(await keysOf(remote), []);
});

test('a content store in another process stands in for a built-in one that is disabled', async (t) => {
  t.timeout(300_000);
  const remote = await useRemote(t).start();
  const daemon = await useDaemon(t, {
    config: `version = 3
disabled_plugins = ["io.containerd.content.v1.content"]
[proxy_plugins.elsewhere]
type = "content"
address = "${remote.address}"
`,
  });
  const written = await daemon.ctr(['content', 'ingest', '--expected-size', '5', 'a-ref'], { input: 'hello' });
  t.is(written.code, 0, written.stderr);
  const digest = 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824';
  t.is((await daemon.ctr(['content', 'get', digest])).stdout, 'hello');
  t.is((await remote.ctr(['content', 'get', digest])).stdout, 'hello');
  t.false(existsSync(join(daemon.root, 'io.containerd.content.v1.content/blobs')));
  await t.throwsAsync(useClient(t, daemon, ContentDefinition).info({ digest: 'sha256:00' }), {
    message: /invalid argument/,
  });
  await remote.stop('SIGKILL');
  t.regex((await daemon.ctr(['content', 'get', digest])).stderr, /proxy plugin "elsewhere" at .*: unavailable/);
});

rootTest(
  'a differ in another process is asked in the order of the config, and passes on what it does not know',
  async (t) => {
    t.timeout(300_000);
    const remote = await useRemote(t).start();
    const proxied = (order: string) => `version = 3
[proxy_plugins.elsewhere]
type = "diff"
address = "${remote.address}"
[plugins."io.containerd.differ.v1.walking"]
default = ${order}
`;
    const archive = join(useScratch(t, 'image'), 'image.tar');
    const layout = imageLayout({ layers: [(dir) => writeFileSync(join(dir, 'a'), 'x')] });
    writeOciArchive(archive, layout, 'example.test/diff:1');
    const daemon = await useDaemon(t, { config: proxied('["elsewhere", "walking"]') });
    // The other side does not have the layer: it is its answer that is heard.
    const refused = await daemon.ctr(['images', 'import', archive]);
    t.regex(refused.stderr, new RegExp(`content ${layout.layers[0]!.descriptor.digest}: not found`));
    // When it has, it unpacks into our mounts.
    t.is((await remote.ctr(['images', 'import', '--no-unpack', archive])).code, 0);
    const imported = await daemon.ctr(['images', 'import', archive]);
    t.is(imported.code, 0, imported.stderr);
    const calls = async (of: Daemon): Promise<number> => {
      const { stdout } = await trouped(of, 'plugins', 'ls', '--json', 'io.containerd.differ.v1.walking');
      const [{ methods }] = JSON.parse(stdout) as [{ methods: { method: string; calls: number }[] }];
      return methods.find(({ method }) => method.endsWith('/Apply'))?.calls ?? 0;
    };
    t.is(await calls(remote), 2);
    // Down, it is an error and no reason to go on to the next: what it was configured for may not be left out.
    await remote.stop('SIGKILL');
    t.not((await daemon.ctr(['images', 'import', '--snapshotter', 'native', archive])).code, 0);
    writeFileSync(join(daemon.dir, 'config.toml'), proxied('["walking"]'));
    const reloaded = await trouped(daemon, 'config', 'reload');
    t.is(reloaded.code, 0, reloaded.stderr);
    t.is((await daemon.ctr(['images', 'import', '--snapshotter', 'native', archive])).code, 0);
  },
);

test('a proxy is a plugin of the config: it comes and goes with it, and a clash of names is told with its line', async (t) => {
  t.timeout(300_000);
  const daemon = await useDaemon(t);
  const file = join(daemon.dir, 'config.toml');
  const reload = async () => {
    const { stdout, stderr } = await trouped(daemon, 'config', 'reload');
    return stdout + stderr;
  };
  writeFileSync(file, far('/nonexistent.sock'));
  t.is(await reload(), 'reloaded\n  start     io.containerd.snapshotter.v1.far\n');
  writeFileSync(file, far('/other.sock'));
  t.is(await reload(), 'reloaded\n  reload    io.containerd.snapshotter.v1.far\n');
  writeFileSync(file, far('/other.sock', 'deadline = "2s"\n'));
  t.is(await reload(), 'reloaded\n  configure io.containerd.snapshotter.v1.far\n');
  writeFileSync(file, `# moved by a line\n${far('/other.sock', 'deadline = "2s"\n')}`);
  t.is(await reload(), 'nothing has changed\n');
  writeFileSync(file, 'version = 3\n[proxy_plugins.native]\ntype = "snapshot"\naddress = "/x.sock"\n');
  t.regex(
    await reload(),
    /config\.toml:2: plugin io\.containerd\.snapshotter\.v1\.native is also in .*snapshotter-native\/plugin\.toml/,
  );
  writeFileSync(file, 'version = 3\n');
  t.is(await reload(), 'reloaded\n  stop      io.containerd.snapshotter.v1.far\n');
});
