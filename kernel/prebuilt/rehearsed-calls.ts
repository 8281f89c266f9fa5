/** A call of each kind that clients of a daemon send often, each plugin's in a turn of its own. */
import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { Container, ContainersDefinition } from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import {
  ContentDefinition,
  Info,
  WriteAction,
  WriteContentRequest,
} from '../../proto/gen/containerd/services/content/v1/content.ts';
import { DiffDefinition } from '../../proto/gen/containerd/services/diff/v1/diff.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events/v1/events.ts';
import { Image, ImagesDefinition } from '../../proto/gen/containerd/services/images/v1/images.ts';
import { IntrospectionDefinition } from '../../proto/gen/containerd/services/introspection/v1/introspection.ts';
import { LeasesDefinition } from '../../proto/gen/containerd/services/leases/v1/leases.ts';
import { NamespacesDefinition } from '../../proto/gen/containerd/services/namespaces/v1/namespaces.ts';
import { SnapshotsDefinition } from '../../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import { TasksDefinition } from '../../proto/gen/containerd/services/tasks/v1/tasks.ts';
import { VersionDefinition } from '../../proto/gen/containerd/services/version/v1/version.ts';
import { type GrpcClient, typedClient } from '../front/client.ts';

const options = { namespace: 'rehearsal', timeoutMs: 10_000 };
/** Otherwise a collection may come in between. */
const kept = { 'containerd.io/gc.root': 'rehearsal' };
const data = Buffer.from('{"rehearsed":true}');
const digest = digestOf(data);
const target = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: BigInt(data.byteLength) };

/** Never rejects: a service that is not there, or not for this user, is left out. */
export async function callEverything(client: GrpcClient): Promise<void> {
  for (const turn of [version, content, images, containers, leases, snapshots, layers, events, tasks, namespaces]) {
    await turn(client).catch(() => {});
  }
}

async function version(client: GrpcClient): Promise<void> {
  await typedClient(client, VersionDefinition).version({}, options);
  await typedClient(client, IntrospectionDefinition).plugins({ filters: ['type~=service'] }, options);
}

async function upload(client: GrpcClient, bytes: Uint8Array): Promise<void> {
  async function* write() {
    const ref = 'rehearsal';
    const total = BigInt(bytes.byteLength);
    yield WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref, total });
    yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref, data: bytes, total });
    yield WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, ref, offset: total, total, labels: kept });
  }
  for await (const _ of typedClient(client, ContentDefinition).write(write(), options));
}

async function content(client: GrpcClient): Promise<void> {
  await upload(client, data);
  const store = typedClient(client, ContentDefinition);
  await store.info({ digest }, options);
  await store.update({ info: Info.fromPartial({ digest, labels: { a: 'b' } }), updateMask: ['labels.a'] }, options);
  await store.listStatuses({ filters: [] }, options);
  for await (const _ of store.list({ filters: [] }, options));
  for await (const _ of store.read({ digest, offset: 0n, size: 0n }, options));
  await store.delete({ digest }, options);
}

async function images(client: GrpcClient): Promise<void> {
  const store = typedClient(client, ImagesDefinition);
  const image = Image.fromPartial({ name: 'rehearsal', target, labels: { a: 'b' } });
  await store.create({ image, sourceDateEpoch: undefined }, options);
  await store.get({ name: image.name }, options);
  await store.update(
    { image: { ...image, labels: { a: 'c' } }, updateMask: ['labels.a'], sourceDateEpoch: undefined },
    options,
  );
  await store.list({ filters: ['name==rehearsal'] }, options);
  await store.delete({ name: image.name, sync: true }, options);
}

async function containers(client: GrpcClient): Promise<void> {
  const store = typedClient(client, ContainersDefinition);
  const spec = { typeUrl: 'rehearsal', value: data };
  const runtime = { name: 'io.containerd.runc.v2' };
  const container = Container.fromPartial({ id: 'rehearsal', labels: { a: 'b' }, runtime, spec });
  await store.create({ container }, options);
  await store.get({ id: container.id }, options);
  await store.update({ container: { ...container, labels: { a: 'c' } }, updateMask: ['labels.a'] }, options);
  await store.list({ filters: ['labels.a==c'] }, options);
  await store.delete({ id: container.id }, options);
}

async function leases(client: GrpcClient): Promise<void> {
  const store = typedClient(client, LeasesDefinition);
  const id = 'rehearsal';
  await store.create({ id, labels: { a: 'b' } }, options);
  await store.addResource({ id, resource: { id: digest, type: 'content' } }, options);
  await store.listResources({ id }, options);
  await store.list({ filters: [] }, options);
  await store.delete({ id, sync: true }, options);
}

async function snapshots(client: GrpcClient): Promise<void> {
  const store = typedClient(client, SnapshotsDefinition);
  for (const snapshotter of ['native', 'overlayfs']) {
    const active = { snapshotter, key: 'rehearsal' };
    await store.prepare({ ...active, parent: '', labels: kept }, options);
    await store.mounts(active, options);
    await store.stat(active, options);
    await store.commit({ ...active, name: 'rehearsed', labels: kept, parent: '' }, options);
    for await (const _ of store.list({ snapshotter, filters: [] }, options));
    await store.remove({ snapshotter, key: 'rehearsed' }, options);
  }
}

/** Unpacks, and makes a layer of what is there. */
async function layers(client: GrpcClient): Promise<void> {
  const store = typedClient(client, SnapshotsDefinition);
  const differ = typedClient(client, DiffDefinition);
  const tar = Buffer.concat([
    tarEntry('rehearsed/', '5', Buffer.alloc(0)),
    tarEntry('rehearsed/file', '0', Buffer.alloc(8192, 'x')),
    tarEntry('rehearsed/small', '0', data),
    tarEntry('rehearsed/link', '2', Buffer.alloc(0)),
    Buffer.alloc(1024),
  ]);
  for (const [compression, bytes] of [
    ['gzip', gzipSync(tar)],
    ['zstd', zstdCompressSync(tar)],
  ] as const) {
    await upload(client, bytes);
    const mediaType = `application/vnd.oci.image.layer.v1.tar+${compression}`;
    const diff = { mediaType, digest: digestOf(bytes), size: BigInt(bytes.byteLength), annotations: {} };
    for (const snapshotter of ['native', 'overlayfs']) {
      const active = { snapshotter, key: `rehearsal-${compression}` };
      const { mounts } = await store.prepare({ ...active, parent: '', labels: kept }, options);
      await differ.apply({ diff, mounts, payloads: {}, syncFs: false }, options);
      const made = { left: [], right: mounts, mediaType, ref: `${snapshotter}-made`, labels: kept };
      await differ.diff({ ...made, sourceDateEpoch: undefined }, options);
      await store.commit({ ...active, name: `layer-${compression}`, labels: kept, parent: '' }, options);
      await store.remove({ snapshotter, key: `layer-${compression}` }, options);
    }
    await typedClient(client, ContentDefinition).delete({ digest: diff.digest }, options);
  }
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** One entry of an archive as POSIX has it (ustar). */
function tarEntry(name: string, type: '0' | '2' | '5', bytes: Buffer): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0);
  header.write(octal(type === '5' ? 0o755 : 0o644, 7), 100);
  for (const at of [108, 116]) header.write(octal(0, 7), at);
  header.write(octal(bytes.byteLength, 11), 124);
  header.write(octal(1_000_000_000, 11), 136);
  header.write(`        ${type}${type === '2' ? 'file' : ''}`, 148);
  header.write('ustar\x0000', 257);
  header.write(
    `${octal(
      header.reduce((sum, byte) => sum + byte, 0),
      6,
    )} `,
    148,
  );
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.byteLength % 512)) % 512)]);
}

async function events(client: GrpcClient): Promise<void> {
  const exchange = typedClient(client, EventsDefinition);
  const heard = new AbortController();
  const topic = '/rehearsal';
  const subscribed = exchange.subscribe({ filters: [`topic=="${topic}"`] }, { ...options, signal: heard.signal });
  const publishing = setInterval(() => {
    exchange.publish({ topic, event: { typeUrl: 'rehearsal', value: data } }, options).catch(() => {});
  }, 20);
  try {
    for await (const _ of subscribed) break;
  } finally {
    clearInterval(publishing);
    heard.abort();
  }
}

async function tasks(client: GrpcClient): Promise<void> {
  const service = typedClient(client, TasksDefinition);
  await service.list({ filter: '' }, options);
}

async function namespaces(client: GrpcClient): Promise<void> {
  const store = typedClient(client, NamespacesDefinition);
  await store.create({ namespace: { name: 'rehearsed', labels: { a: 'b' } } }, options);
  await store.get({ name: 'rehearsed' }, options);
  await store.list({ filter: '' }, options);
  await store.delete({ name: 'rehearsed' }, options);
}
