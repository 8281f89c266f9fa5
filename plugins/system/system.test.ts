import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';
import { SnapshotterDefinition } from 'troupe/proto/troupe/snapshots/v1/snapshots.ts';
import { HealthCheckResponse_ServingStatus as Status, HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
import { KernelDefinition, Plugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { parseFilters } from '../lib/filter/filter.ts';
import { inProcess } from '../../test/helpers/in-process.ts';
import system from './index.ts';
import { ServerId } from './server-id.ts';

const overlayfs = Plugin.fromPartial({
  id: 'io.containerd.snapshotter.v1.overlayfs',
  state: 'ready',
  platforms: ['linux/amd64', 'linux/arm64', 'plan9/mips'],
  capabilities: ['rebase'],
});
const images = Plugin.fromPartial({
  id: 'io.containerd.service.v1.images-service',
  aliases: ['io.containerd.grpc.v1.images'],
  state: 'ready',
  requires: ['troupe.records.v1.records', 'troupe.records.v1.other'],
  required: true,
});

async function setUp(t: ExecutionContext, plugins: Plugin[]) {
  const daemon = inProcess(t);
  const kernel = { plugins };
  daemon.serve(KernelDefinition, {
    list: () => ({ ...kernel, serving: kernel.plugins.every(({ required, state }) => !required || state === 'ready') }),
  });
  await daemon.add(system, { id: 'io.containerd.service.v1.introspection-service', config: { path: '/opt/x' } });
  return {
    daemon,
    kernel,
    version: daemon.client(VersionDefinition),
    introspection: daemon.client(IntrospectionDefinition),
    health: daemon.client(HealthDefinition),
  };
}

test('the version is one of containerd 2 when transfers are served, and else one that clients take who do all by themselves', async (t) => {
  const { daemon, version } = await setUp(t, []);
  t.deepEqual(await version.version({}), { version: '1.6.20+troupe.0.1.0', revision: 'test' });
  daemon.serve(TransferDefinition, {});
  t.is((await version.version({})).version, '1.6.20+troupe.0.1.0');
  daemon.serve(StreamingDefinition, {});
  t.is((await version.version({})).version, '2.0.0+troupe.0.1.0');
});

test('plugins are listed under every URI that they answer to', async (t) => {
  const { daemon, introspection } = await setUp(t, [
    overlayfs,
    images,
    Plugin.fromPartial({ id: 'io.containerd.internal.v1.opt', state: 'ready' }),
    Plugin.fromPartial({ id: 'io.x.v1.skipped', state: 'skipped', reason: 'no such device' }),
    Plugin.fromPartial({ id: 'io.x.v1.failed', state: 'failed', reason: 'broken' }),
    Plugin.fromPartial({ id: 'io.x.v1.disabled', state: 'disabled' }),
    Plugin.fromPartial({ id: 'front', state: 'ready' }),
  ]);
  const { plugins } = await introspection.plugins({});
  t.deepEqual(
    plugins.map(({ type, id, initErr }) => `${type} ${id} ${initErr?.message ?? 'ok'}`),
    [
      'io.containerd.snapshotter.v1 overlayfs ok',
      'io.containerd.service.v1 images-service ok',
      'io.containerd.grpc.v1 images ok',
      'io.containerd.internal.v1 opt ok',
      'io.x.v1 skipped no such device: skip plugin',
      'io.x.v1 failed broken',
    ],
  );
  const [snapshotter, service, , opt] = plugins;
  t.is(snapshotter?.platforms.length, 1);
  t.is(snapshotter?.platforms[0]?.os, 'linux');
  t.deepEqual(snapshotter?.capabilities, ['rebase']);
  t.deepEqual(snapshotter?.exports, { root: join(daemon.root, 'io.containerd.snapshotter.v1.overlayfs') });
  t.deepEqual(service?.requires, ['troupe.records.v1']);
  daemon.serve(SnapshotterDefinition, { info: () => ({ root: '/elsewhere/snapshots' }) }, 'overlayfs');
  const [configured] = (await introspection.plugins({ filters: ['id==overlayfs'] })).plugins;
  t.deepEqual(configured?.exports, { root: '/elsewhere' });
  t.deepEqual(opt?.exports, { path: '/opt/x' });
});

test('the differ tells what inflates its layers', async (t) => {
  const { introspection } = await setUp(t, [
    Plugin.fromPartial({ id: 'io.containerd.differ.v1.walking', state: 'ready' }),
  ]);
  const [differ] = (await introspection.plugins({})).plugins;
  t.true(['isa-l', 'node:zlib'].includes(differ!.exports.gzip!));
  t.true(['zstd', 'node:zlib'].includes(differ!.exports.zstd!));
});

test('plugins are filtered by type and id', async (t) => {
  const { introspection } = await setUp(t, [overlayfs, images]);
  const ids = async (...filters: string[]) => (await introspection.plugins({ filters })).plugins.map(({ id }) => id);
  t.deepEqual(await ids('type==io.containerd.snapshotter.v1,id==overlayfs'), ['overlayfs']);
  t.deepEqual(await ids('type~=snapshotter', 'id==images'), ['overlayfs', 'images']);
  t.deepEqual(await ids('capabilities'), []);
  await t.throwsAsync(ids('(('), { message: /^filters: parse error: .*: invalid argument$/ });
});

test('one plugin is told of by itself', async (t) => {
  const skipped = Plugin.fromPartial({ id: 'io.x.v1.skipped', state: 'skipped', reason: 'none here' });
  const { introspection } = await setUp(t, [overlayfs, skipped]);
  const { plugin } = await introspection.pluginInfo({ type: 'io.containerd.snapshotter.v1', id: 'overlayfs' });
  t.deepEqual(plugin?.capabilities, ['rebase']);
  await t.throwsAsync(introspection.pluginInfo({ type: 'a', id: 'b' }), { message: 'plugin "a.b": not found' });
  await t.throwsAsync(introspection.pluginInfo({ type: 'io.x.v1', id: 'skipped' }), {
    message: 'plugin "io.x.v1.skipped": none here: skip plugin: failed precondition',
  });
});

test('the server keeps its uuid', async (t) => {
  const { daemon, introspection } = await setUp(t, []);
  const server = await introspection.server({});
  t.regex(server.uuid, /^[0-9a-f-]{36}$/);
  t.is(server.pid, BigInt(process.pid));
  t.true(server.pidns > 0n);
  t.is((await introspection.server({})).uuid, server.uuid);
  const directory = join(daemon.root, 'io.containerd.grpc.v1.introspection');
  t.is(readFileSync(join(directory, 'uuid'), 'utf8'), server.uuid);
  t.is(new ServerId(directory).uuid(), server.uuid);
  writeFileSync(join(directory, 'uuid'), 'half');
  t.not(new ServerId(directory).uuid(), server.uuid);
});

test('healthy is when required plugins are ready and lists are answered', async (t) => {
  const { daemon, kernel, health } = await setUp(t, [images, overlayfs]);
  const check = async () => (await health.check({})).status;
  t.is(await check(), Status.SERVING);
  kernel.plugins = [{ ...images, state: 'backoff' }, overlayfs];
  t.is(await check(), Status.NOT_SERVING);
  kernel.plugins = [images, { ...overlayfs, state: 'failed' }];
  t.is(await check(), Status.SERVING, 'a plugin that is not required may fail');
  daemon.serve(ImagesDefinition, {
    list({ filters }: { filters: string[] }) {
      parseFilters(filters);
      return { images: [] };
    },
  });
  t.is(await check(), Status.SERVING);
  daemon.serve(ImagesDefinition, {
    list() {
      throw new Failure('Unavailable', 'records: unavailable');
    },
  });
  t.is(await check(), Status.NOT_SERVING);
  const error = await t.throwsAsync(health.check({ service: 'containerd.services.images.v1.Images' }), {
    message: 'unknown service',
  });
  t.true(Failure.is(error, 'NotFound'));
});

test('watchers are told at once, and of changes', async (t) => {
  const { kernel, health } = await setUp(t, [images]);
  const told: number[] = [];
  for await (const { status } of health.watch({})) {
    told.push(status);
    if (told.length === 2) break;
    kernel.plugins = [{ ...images, state: 'failed' }];
  }
  t.deepEqual(told, [Status.SERVING, Status.NOT_SERVING]);
  for await (const { status } of health.watch({ service: 'other' })) {
    t.is(status, Status.SERVICE_UNKNOWN);
    break;
  }
});
