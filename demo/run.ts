/**
 * `npm run demo`: the main job on real input. Starts a daemon on a scratch root, imports and unpacks an image made of files of this machine, runs a
 * container from it, shows what happened inside, and leaves nothing behind.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GrpcClient, typedClient } from '../kernel/front/client.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events/v1/events.ts';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection/v1/introspection.ts';
import { LeasesDefinition } from '../proto/gen/containerd/services/leases/v1/leases.ts';
import { VersionDefinition } from '../proto/gen/containerd/services/version/v1/version.ts';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { KernelDefinition } from '../proto/gen/troupe/kernel/v1/kernel.ts';
import { DemoContainer } from './container.ts';
import { buildImage } from './image.ts';
import { importImage, unpack } from './import.ts';
import { leftovers } from './leftovers.ts';
import { megabytes, Progress } from './progress.ts';

const checkout = fileURLToPath(new URL('..', import.meta.url));
const root = process.getuid?.() === 0;
const began = performance.now();

function say(text: string): void {
  console.log(`\n\x1b[1m${text}\x1b[0m`);
}

function inPath(command: string): boolean {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .concat('/usr/sbin', '/sbin')
    .some((dir) => executable(join(dir, command)));
}

function executable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Why containers cannot be run here; empty when they can. */
function missing(): string[] {
  return [
    ...(root ? [] : ['root (containers, overlayfs and file owners need it)']),
    ...(inPath('runc') ? [] : ['runc (Debian: apt-get install runc)']),
    ...(inPath('containerd-shim-runc-v2') ? [] : ['containerd-shim-runc-v2 (Debian: apt-get install containerd)']),
    ...(executable('/bin/busybox') ? [] : ['/bin/busybox (Debian: apt-get install busybox-static)']),
  ];
}

async function startDaemon(
  scratch: string,
): Promise<{ child: ChildProcess; client: GrpcClient; address: string; bootMs: number }> {
  const address = join(scratch, 'troupe.sock');
  const config = join(scratch, 'config.toml');
  writeFileSync(config, 'version = 3\n');
  const log = openSync(join(scratch, 'log'), 'w');
  const started = performance.now();
  const child = spawn(
    join(checkout, 'kernel/trouped'),
    ['--config', config, '--address', address, '--root', join(scratch, 'root'), '--state', join(scratch, 'state')],
    { stdio: ['ignore', log, log] },
  );
  const client = new GrpcClient(address, { namespace: 'demo' });
  const gone = new Promise<never>((_, reject) =>
    child.once('exit', (code) =>
      reject(new Error(`the daemon ended with ${code}:\n${readFileSync(join(scratch, 'log'), 'utf8')}`)),
    ),
  );
  gone.catch(() => undefined);
  await Promise.race([client.ready(30_000), gone]);
  const { status } = await typedClient(client, HealthDefinition).check({ service: '' });
  if (status !== 1) throw new Error('the daemon does not say SERVING');
  return { child, client, address, bootMs: performance.now() - started };
}

async function main(): Promise<number> {
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-demo-'));
  const lacking = missing();
  say('1  Starting a daemon on a scratch root');
  const { child, client, address, bootMs } = await startDaemon(scratch);
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  try {
    const { version, revision } = await typedClient(client, VersionDefinition).version({});
    console.log(
      `  serving after ${bootMs.toFixed(0)} ms: pid ${child.pid}, version ${version} ${revision.slice(0, 12)}, socket ${address}`,
    );
    const events = new Map<string, number>();
    const listening = new AbortController();
    const listen = listenTo(client, events, listening.signal);

    say('2  Building an image from files of this machine');
    const image = buildImage(scratch, checkout);
    for (const layer of image.layers)
      console.log(
        `  ${layer.what.padEnd(34)} ${megabytes(layer.size).padStart(8)} gzip, ${megabytes(layer.rawSize)} raw, ${layer.digest.slice(0, 19)}…`,
      );

    say('3  Importing it');
    const progress = new Progress();
    for (const layer of image.layers) progress.add(layer.digest, layer.what, layer.size);
    const lease = await timed(async () => importImage(client, image, progress));
    progress.close();
    console.log(`  ${image.name} in ${lease.ms.toFixed(0)} ms`);

    const { snapshotter, parallel } = await chooseSnapshotter(client);
    say(
      `4  Unpacking it into ${snapshotter} snapshots, ${parallel ? 'all layers at once' : 'one layer after the other'}`,
    );
    for (const layer of image.layers) progress.add(`unpack ${layer.digest}`, layer.what, layer.rawSize);
    const chain = await timed(async () => unpack(client, image, snapshotter, parallel, lease.value, progress));
    progress.close();
    const raw = image.layers.reduce((sum, layer) => sum + layer.rawSize, 0);
    console.log(
      `  ${megabytes(raw)} in ${chain.ms.toFixed(0)} ms, ${(raw / 1e3 / chain.ms).toFixed(0)} MB/s, every diff id as the image says`,
    );
    await typedClient(client, LeasesDefinition).delete({ id: lease.value, sync: true });

    if (lacking.length === 0) {
      say('5  Running a container');
      const container = new DemoContainer(client, 'demo', scratch, snapshotter);
      await container.create(chain.value, image.name, [
        'sh',
        '-c',
        'cat /etc/motd; echo "pid $$, host $(hostname), $(find / -xdev | wc -l) files, hidden file there: $(ls /etc/gone 2>/dev/null || echo no)"; sleep 1; exit 7',
      ]);
      const { pid, ended: exit } = await container.start();
      console.log(`  started, pid ${pid} outside`);
      const inside = await container.exec(['sh', '-c', 'echo "a second process beside it: $(id)"']);
      const { output, exitStatus } = await exit;
      for (const line of `${output}${inside.output}`.trimEnd().split('\n')) console.log(`  │ ${line}`);
      console.log(`  the exec ended with ${inside.exitStatus}, the container with ${exitStatus}`);
      await container.remove();
    } else {
      say('5  Running a container: left out');
      console.log('  It would need, and this machine does not have:');
      for (const each of lacking) console.log(`  · ${each}`);
    }

    say('6  The plugins that did it');
    await showPlugins(client);
    say('7  The events it caused');
    listening.abort();
    await listen;
    for (const [topic, count] of [...events].sort()) console.log(`  ${topic.padEnd(28)} ${String(count).padStart(4)}`);
  } finally {
    client.close();
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 15_000);
    const code = await ended;
    clearTimeout(timer);
    if (code !== 0)
      console.log(
        `  the daemon ended with ${code}; its last words:\n${readFileSync(join(scratch, 'log'), 'utf8').split('\n').slice(-12).join('\n')}`,
      );
    rmSync(scratch, { recursive: true, force: true });
  }
  const left = leftovers(scratch, address);
  say(
    left.length === 0
      ? '8  Stopped. Nothing is left: no mount, process, cgroup or file'
      : '8  Stopped, and this is left, which is a bug:',
  );
  for (const each of left) console.log(`  ${each}`);
  console.log(`  ${((performance.now() - began) / 1000).toFixed(1)} s in all`);
  return left.length === 0 ? 0 : 1;
}

async function timed<T>(work: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const from = performance.now();
  const value = await work();
  return { value, ms: performance.now() - from };
}

async function listenTo(client: GrpcClient, events: Map<string, number>, signal: AbortSignal): Promise<void> {
  try {
    for await (const { topic } of typedClient(client, EventsDefinition).subscribe({ filters: [] }, { signal }))
      events.set(topic, (events.get(topic) ?? 0) + 1);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** overlayfs where it works; its layers need not wait for each other. */
async function chooseSnapshotter(client: GrpcClient): Promise<{ snapshotter: string; parallel: boolean }> {
  const { plugins } = await typedClient(client, IntrospectionDefinition).plugins({
    filters: ['type==io.containerd.snapshotter.v1'],
  });
  const usable = plugins.filter((plugin) => plugin.initErr === undefined);
  const overlay = usable.find((plugin) => plugin.id === 'overlayfs');
  return overlay === undefined
    ? { snapshotter: 'native', parallel: false }
    : { snapshotter: 'overlayfs', parallel: overlay.capabilities.includes('rebase') };
}

async function showPlugins(client: GrpcClient): Promise<void> {
  const { plugins, rssBytes } = await typedClient(client, KernelDefinition).list({ ids: [] });
  console.log(`  ${'plugin'.padEnd(46)} ${'state'.padEnd(8)} gen  heap MB   CPU ms   calls`);
  for (const plugin of plugins) {
    const heap = (Number(plugin.heapBytes) / 2 ** 20).toFixed(1);
    console.log(
      `  ${plugin.id.padEnd(46)} ${plugin.state.padEnd(8)} ${String(plugin.generation).padStart(3)} ${heap.padStart(8)} ${plugin.cpuMs.toFixed(0).padStart(8)} ${String(plugin.calls).padStart(7)}`,
    );
  }
  console.log(`  each in a thread of its own; ${megabytes(Number(rssBytes))} resident in all`);
}

mkdirSync(tmpdir(), { recursive: true });
process.exit(await main());
