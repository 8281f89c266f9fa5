/**
 * `npm run demo`: the main job on real input. Starts a daemon on a scratch root, imports and unpacks an image made of files of this machine, runs a
 * container from it, replaces one plugin and kills another while they are called, and leaves nothing behind. What this user or machine does not allow is left out, and said.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type GrpcClient, typedClient } from '../kernel/front/client.ts';
import { EventsDefinition } from '../proto/gen/containerd/services/events/v1/events.ts';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection/v1/introspection.ts';
import { LeasesDefinition } from '../proto/gen/containerd/services/leases/v1/leases.ts';
import { VersionDefinition } from '../proto/gen/containerd/services/version/v1/version.ts';
import { KernelDefinition } from '../proto/gen/troupe/kernel/v1/kernel.ts';
import { DemoContainer } from './container.ts';
import { DemoDaemon } from './daemon.ts';
import { buildImage, type Image } from './image.ts';
import { importImage, omissions, unpack } from './import.ts';
import { killUnderLoad, reloadUnderLoad } from './kernel.ts';
import { leftovers } from './leftovers.ts';
import { mortalOf } from './mortal.ts';
import { containerObstacles, type Obstacle } from './obstacles.ts';
import { megabytes, Progress } from './progress.ts';

const checkout = fileURLToPath(new URL('..', import.meta.url));
const bold = process.stdout.isTTY ? (text: string) => `\x1b[1m${text}\x1b[0m` : (text: string) => text;
const began = performance.now();

function say(text: string): void {
  console.log(`\n${bold(text)}`);
}

interface Storage {
  readonly snapshotter: string;
  /** Layers need not wait for each other. */
  readonly parallel: boolean;
  /** Why it is not the better one. */
  readonly instead: string | undefined;
}

async function main(): Promise<number> {
  mkdirSync(tmpdir(), { recursive: true });
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-demo-'));
  const daemon = new DemoDaemon(join(checkout, 'kernel/trouped'), scratch);
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => reject(new Interrupted(signal)));
  });
  let outcome = 0;
  try {
    await Promise.race([show(daemon, scratch), interrupted]);
  } catch (error) {
    outcome = error instanceof Interrupted ? 130 : 1;
    console.log(`\n${error instanceof Interrupted ? error.message : (error as Error).stack}`);
    if (error instanceof Interrupted) await endContainer(daemon.client);
  }
  await daemon.stop();
  rmSync(scratch, { recursive: true, force: true });
  const left = leftovers(scratch, daemon.address);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if (left.length === 0) say(`Stopped after ${seconds} s. Nothing is left: no mount, process, cgroup or file`);
  else say('Stopped, and this is left, which is a bug:');
  for (const each of left) console.log(`  ${each}`);
  return left.length > 0 ? 1 : outcome;
}

class Interrupted extends Error {
  constructor(signal: string) {
    super(`${signal}: cleaning up`);
  }
}

async function show(daemon: DemoDaemon, scratch: string): Promise<void> {
  const { client } = daemon;
  say('1  Starting a daemon on a scratch root');
  const boot = await timed(() => daemon.ready());
  const { version, revision } = await typedClient(client, VersionDefinition).version({});
  const who = `pid ${daemon.pid}, version ${version} ${revision.slice(0, 12)}, socket ${daemon.address}`;
  console.log(`  serving after ${boot.ms.toFixed(0)} ms: ${who}`);
  const events = new Map<string, number>();
  const listening = new AbortController();
  const listen = listenTo(client, events, listening.signal);
  listen.catch(() => undefined);

  say('2  Building an image from files of this machine');
  const image = buildImage(scratch, checkout);
  for (const { what, size, rawSize, digest } of image.layers) {
    const sizes = `${megabytes(size).padStart(8)} gzip, ${megabytes(rawSize)} raw`;
    console.log(`  ${what.padEnd(34)} ${sizes}, ${digest.slice(0, 19)}…`);
  }

  const storage = await chooseSnapshotter(client);
  const top = await bringIn(client, image, storage);

  const obstacles = containerObstacles();
  if (obstacles.length === 0 && storage.instead !== undefined)
    obstacles.push({ what: storage.instead, allows: 'a sandbox that lets this root mount' });
  if (obstacles.length === 0) await runContainer(client, image, storage, top, scratch);
  else leaveOut(obstacles);

  say('6  Reloading a plugin and killing another while both are called');
  await reloadUnderLoad(client);
  await killUnderLoad(client, mortalOf(daemon.mortal, client));

  say('7  The plugins that did it');
  await showPlugins(client);
  say('8  The events it caused');
  listening.abort();
  await listen;
  for (const [topic, count] of [...events].sort()) console.log(`  ${topic.padEnd(28)} ${String(count).padStart(4)}`);
}

/** @returns the chain id of the unpacked image */
async function bringIn(client: GrpcClient, image: Image, storage: Storage): Promise<string> {
  say('3  Importing it');
  const progress = new Progress();
  for (const layer of image.layers) progress.add(layer.digest, layer.what, layer.size);
  const lease = await timed(() => importImage(client, image, progress));
  progress.close();
  console.log(`  ${image.name} in ${lease.ms.toFixed(0)} ms`);

  const { snapshotter, parallel, instead } = storage;
  say(
    `4  Unpacking it into ${snapshotter} snapshots, ${parallel ? 'all layers at once' : 'one layer after the other'}`,
  );
  if (instead !== undefined) {
    console.log(`  Not overlayfs, whose layers need not wait for each other: ${instead}`);
    console.log('  What would allow it: root that may mount (and a file system that overlayfs takes)');
  }
  for (const layer of image.layers) progress.add(`unpack ${layer.digest}`, layer.what, layer.rawSize);
  const unpacked = await timed(() => unpack(client, image, storage, lease.value, progress));
  progress.close();
  const raw = image.layers.reduce((sum, layer) => sum + layer.rawSize, 0);
  const speed = `${megabytes(raw)} in ${unpacked.ms.toFixed(0)} ms, ${(raw / 1e3 / unpacked.ms).toFixed(0)} MB/s`;
  console.log(`  ${speed}, every diff id as the image says`);
  const { chain, waited } = unpacked.value;
  for (const [why, layers] of Map.groupBy(waited.keys(), (layer) => waited.get(layer)!)) {
    const which = layers.length === image.layers.length ? 'All' : layers.map(({ what }) => what).join(', ');
    console.log(`  ${which} waited for the layer below: ${why}`);
  }
  for (const [kind, count] of await omissions(client, snapshotter, chain)) {
    console.log(
      `  ${described[kind] ?? kind}: left out of ${count} snapshots, which say so in their label troupe/omitted`,
    );
    console.log('  What would allow it: root');
  }
  await typedClient(client, LeasesDefinition).delete({ id: lease.value, sync: true });
  return chain.at(-1)!;
}

const described: Readonly<Record<string, string>> = {
  ownership: 'The owners of files (all belong to this user)',
  device: 'Devices',
  xattr: 'Some extended attributes',
  mode: 'Modes that keep the owner out',
};

const containerId = 'demo';

async function runContainer(
  client: GrpcClient,
  image: Image,
  { snapshotter }: Storage,
  top: string,
  scratch: string,
): Promise<void> {
  say('5  Running a container');
  const container = new DemoContainer(client, containerId, scratch, snapshotter);
  try {
    await container.create(top, image.name, [
      'sh',
      '-c',
      'cat /etc/motd; echo "pid $$, host $(hostname), $(find / -xdev | wc -l) files, the hidden file: $(cat /etc/gone 2>/dev/null || echo not there)"; sleep 1; exit 7',
    ]);
    const { pid, ended } = await container.start();
    console.log(`  started, pid ${pid} outside`);
    const inside = await container.exec(['sh', '-c', 'echo "a second process beside it: $(id)"']);
    const { output, exitStatus } = await ended;
    for (const line of `${output}${inside.output}`.trimEnd().split('\n')) console.log(`  │ ${line}`);
    console.log(`  the exec ended with ${inside.exitStatus}, the container with ${exitStatus}`);
  } finally {
    await container.remove();
  }
}

function leaveOut(obstacles: readonly Obstacle[]): void {
  say('5  Running a container: left out');
  for (const { what, allows } of obstacles) {
    console.log(`  · ${what}`);
    console.log(`    What would allow it: ${allows}`);
  }
}

/** After a Ctrl-C: what had not begun is not there, and that is fine. */
async function endContainer(client: GrpcClient): Promise<void> {
  try {
    await new DemoContainer(client, containerId, '', (await chooseSnapshotter(client)).snapshotter).remove();
  } catch (error) {
    console.log(`  its container: ${(error as Error).message}`);
  }
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

/** overlayfs where it works. */
async function chooseSnapshotter(client: GrpcClient): Promise<Storage> {
  const { plugins } = await typedClient(client, IntrospectionDefinition).plugins({
    filters: ['type==io.containerd.snapshotter.v1'],
  });
  const overlay = plugins.find((plugin) => plugin.id === 'overlayfs');
  if (overlay !== undefined && overlay.initErr === undefined)
    return { snapshotter: 'overlayfs', parallel: overlay.capabilities.includes('rebase'), instead: undefined };
  const reason = overlay?.initErr?.message ?? 'this daemon has no such plugin';
  return { snapshotter: 'native', parallel: false, instead: reason.replace(/: skip plugin$/, '') };
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

process.exit(await main());
