/** `trouped plugins …` against a daemon that runs: what it lists, what it changes, and what it says when it cannot. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { type Outcome, run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';

const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));
const native = 'io.containerd.snapshotter.v1.native';

const trouped = (daemon: Daemon, ...args: string[]): Promise<Outcome> =>
  run(launcher, ['--address', daemon.address, ...args], { cwd: daemon.dir, timeoutMs: 100_000 });

test('the kernel service by its command line', async (t) => {
  t.timeout(240_000);
  const daemon = await useDaemon(t);

  const listed = await trouped(daemon, 'plugins', 'ls');
  t.is(listed.code, 0, listed.stderr);
  t.regex(
    listed.stdout,
    /^ID +STATE +THREAD +GEN +RESTARTS +HEAP +EXTERNAL +CPU +LOOP +CALLS +FAILED +RUNNING +QUEUED\n/,
  );
  t.regex(
    listed.stdout,
    /^io\.containerd\.snapshotter\.v1\.native +ready +- +1 +0 +\d+\.\dM +\d+\.\dM +\d+\.\d\ds +\d+\.\d% +\d+ +0 +0 +0$/m,
  );

  await daemon.ctr(['namespaces', 'ls']);
  const json = await trouped(daemon, 'plugins', 'ls', '--json', 'io.containerd.grpc.v1.namespaces');
  const [namespaces] = JSON.parse(json.stdout) as {
    id: string;
    state: string;
    calls: number;
    methods: { method: string }[];
  }[];
  t.is(namespaces!.state, 'ready');
  t.is(namespaces!.calls, 1);
  t.deepEqual(
    namespaces!.methods.map(({ method }) => method),
    ['containerd.services.namespaces.v1.Namespaces/List'],
  );

  const reloaded = await trouped(daemon, 'plugins', 'reload', '--force', native, 'io.containerd.nothing.v1.here');
  t.is(reloaded.code, 1);
  t.regex(reloaded.stdout, /^io\.containerd\.snapshotter\.v1\.native: \w+/);
  t.is(
    reloaded.stderr,
    'trouped: reload io.containerd.nothing.v1.here: plugin "io.containerd.nothing.v1.here": not found\n',
  );

  const stopped = await trouped(daemon, 'plugins', 'stop', native);
  t.deepEqual([stopped.code, stopped.stdout], [0, `${native}: stopped\n`]);
  t.regex((await trouped(daemon, 'plugins', 'ls', native)).stdout, /native +stopped .*\n {2}↳ stopped by request\n$/);
  const refused = await trouped(daemon, 'plugins', 'reload', native);
  t.regex(`${refused.stdout}${refused.stderr}`, /native: /);
  const started = await trouped(daemon, 'plugins', 'start', native);
  t.regex(started.stdout + started.stderr, /^io\.containerd\.snapshotter\.v1\.native: ready \(generation \d+\)\n$/);
  t.regex((await trouped(daemon, 'plugins', 'restart', native)).stdout, /native: ready \(generation \d+\)/);

  t.regex((await trouped(daemon, 'plugins', 'plan')).stdout, /^\d+ plugins start in \d+ waves\n/);
  t.is((await trouped(daemon, 'plugins', 'config-diff')).stdout, 'nothing has changed\n');

  const profiled = await trouped(daemon, 'plugins', 'profile', native, '--seconds', '0.2');
  t.is(profiled.code, 0, profiled.stderr);
  const profile = JSON.parse(readFileSync(join(daemon.dir, `${native}.cpuprofile`), 'utf8')) as {
    nodes: unknown[];
    samples: number[];
  };
  t.true(profile.nodes.length > 0 && profile.samples.length > 0);
  t.regex((await trouped(daemon, 'plugins', 'profile', 'x.v1.y')).stderr, /^trouped: plugin "x\.v1\.y": not found\n$/);
});

test('watch tells of each transition, top shows what is called, and both end when they are told to', async (t) => {
  t.timeout(240_000);
  const daemon = await useDaemon(t);
  const watch = spawn(launcher, ['--address', daemon.address, 'plugins', 'watch'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const top = spawn(launcher, ['--address', daemon.address, 'plugins', 'top', '--seconds', '0.3'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => {
    for (const child of [watch, top]) child.kill('SIGKILL');
  });
  const heard: string[] = [];
  const restarted = new Promise<void>((resolve) => {
    createInterface({ input: watch.stdout }).on('line', (line) => {
      heard.push(line);
      if (line.includes('initializing → ready')) resolve();
    });
  });
  const shown = new Promise<void>((resolve) => {
    createInterface({ input: top.stdout }).on('line', (line) => {
      if (/^containerd\.services\.namespaces\.v1\.Namespaces\/List +\d+\.\d +[\d.]+ms +[\d.]+ms +0 +0$/.test(line))
        resolve();
    });
  });
  // Until each has begun to look: the first of these may be before.
  let done = false;
  const working = (async () => {
    while (!done) {
      await daemon.ctr(['namespaces', 'ls']);
      await trouped(daemon, 'plugins', 'restart', native);
    }
  })();
  await Promise.all([restarted, shown]);
  done = true;
  await working;
  t.true(
    heard.some((line) =>
      /^\d{4}-.*Z io\.containerd\.snapshotter\.v1\.native \(generation \d+\) spawning → initializing$/.test(line),
    ),
    heard.join('\n'),
  );
  const ended = Promise.all(
    [watch, top].map((child) => new Promise((resolve) => child.once('exit', (...how) => resolve(how)))),
  );
  watch.kill('SIGHUP');
  top.kill('SIGINT');
  t.deepEqual(await ended, [
    [129, null],
    [0, null],
  ]);
});

test('without a daemon it says so', async (t) => {
  const { code, stderr } = await run(launcher, ['--address', '/nonexistent.sock', 'plugins', 'ls']);
  t.deepEqual([code, stderr], [1, 'trouped: no daemon answers on /nonexistent.sock: unavailable\n']);
});
