/** Layers, made of what differs between two directories. */
import { closeSync, mkdirSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import test from 'ava';
import { WriteAction, WriteContentRequest } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { mount } from 'troupe/sys';
import { inProcess } from '../../test/helpers/in-process.ts';
import { rootTest } from '../../test/helpers/privilege.ts';
import { inventory } from '../lib/layer/inventory.ts';
import diff from './index.ts';
import { GZIP, TAR, bind, config, id, overlay, read, refusal, setUp, sha256 } from '../../test/helpers/differ.ts';

rootTest('diff: of a snapshot against its parent, stored with its diff id, and applied again', async (t) => {
  const { client, blobs, directory } = await setUp(t);
  const [lower, upper, work, merged] = [directory('lower'), directory('upper'), directory('work'), directory('merged')];
  writeFileSync(join(lower, 'gone'), 'x');
  writeFileSync(join(lower, 'stays'), 'x');
  mount('overlay', merged, 'overlay', 0, `index=off,lowerdir=${lower},upperdir=${upper},workdir=${work}`);
  writeFileSync(join(merged, 'large'), Buffer.alloc(5 << 20, 'some content '));
  const { unlinkSync } = await import('node:fs');
  unlinkSync(join(merged, 'gone'));

  const left = [bind(lower, 'ro')];
  const right = [overlay([lower], upper, work)];
  const { diff: made } = await client.diff({ left, right, ref: 'a-ref', labels: { 'containerd.io/gc.root': 'now' } });
  t.is(made!.mediaType, GZIP);
  const bytes = await read(blobs, made!.digest);
  t.is(BigInt(bytes.length), made!.size);
  t.is(sha256(bytes), made!.digest);
  const { info } = await blobs.info({ digest: made!.digest });
  t.deepEqual(info!.labels, {
    'containerd.io/gc.root': 'now',
    'containerd.io/uncompressed': sha256(gunzipSync(bytes)),
  });

  const again = directory('again');
  writeFileSync(join(again, 'gone'), 'x');
  writeFileSync(join(again, 'stays'), 'x');
  await client.apply({ diff: made!, mounts: [bind(again)] });
  t.deepEqual(
    inventory(again).map((line) => line.split(' ')[0]),
    ['"large"', '"stays"'],
  );

  // The same once more gives the same blob, and says so; a label that was missing is added.
  const { diff: same } = await client.diff({ left, right, labels: { more: 'yes' } });
  t.is(same!.digest, made!.digest);
  t.is((await blobs.info({ digest: made!.digest })).info!.labels.more, 'yes');
  t.deepEqual((await blobs.listStatuses({})).statuses, []);

  // Walking both, mounted, finds the same layer as the upper directory alone.
  const view = [overlay([upper, lower])];
  const { diff: walked } = await client.diff({
    left: [bind(lower, 'ro'), bind(lower, 'ro')],
    right: view,
    mediaType: TAR,
  });
  t.is(walked!.digest, sha256(gunzipSync(bytes)));
  t.deepEqual((await blobs.info({ digest: walked!.digest })).info!.labels, {});
});

test('diff: against nothing, zstd', async (t) => {
  const { client, directory, blobs } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, 'a'), 'x');
  const { diff: made } = await client.diff({ right: [bind(tree, 'ro')], mediaType: `${TAR}+zstd` });
  t.is(made!.mediaType, `${TAR}+zstd`);
  const root = directory('root');
  await client.apply({ diff: made!, mounts: [bind(root)] });
  t.deepEqual(inventory(root), inventory(tree));
  t.is((await read(blobs, made!.digest)).readUInt32LE(0), 0xfd2fb528);
});

test('diff: what is refused leaves no ingest behind', async (t) => {
  const { client, directory, blobs, daemon } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, '.wh.x'), '');
  await refusal(t, client.diff({ right: [bind(tree)] }), 'FailedPrecondition', /the name means a deletion/);
  await refusal(
    t,
    client.diff({ right: [bind(tree)], mediaType: 'application/json' }),
    'Unimplemented',
    /unsupported diff media type "application\/json"/,
  );
  await refusal(t, client.diff({ right: [bind(join(daemon.root, 'nowhere'))] }), 'NotFound', /directory of a mount/);
  t.deepEqual((await blobs.listStatuses({})).statuses, []);
});

test('diff: a ref that somebody else holds', async (t) => {
  const { client, directory, blobs } = await setUp(t);
  const tree = directory('tree');
  writeFileSync(join(tree, 'large'), Buffer.alloc(30 << 20, 1));
  const held = Promise.withResolvers<void>();
  async function* requests(): AsyncGenerator<WriteContentRequest> {
    yield WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref: 'held' });
    await held.promise;
  }
  const writing = blobs.write(requests())[Symbol.asyncIterator]();
  await writing.next();
  await refusal(t, client.diff({ right: [bind(tree)], ref: 'held', mediaType: TAR }), 'Unavailable', /held/);
  held.resolve();
  await writing.next();
  const { diff: made } = await client.diff({ right: [bind(tree)], ref: 'held', mediaType: TAR });
  t.true(made!.size > 30n << 20n);
});

rootTest('mounts of an earlier daemon are cleaned at the start', async (t) => {
  const daemon = inProcess(t, 'content', 'leases');
  const left = join(daemon.root, 'state', id, 'mounts', '1.1', 'mount-left');
  mkdirSync(left, { recursive: true });
  mount('tmpfs', left, 'tmpfs', 0);
  // In use, as a killed daemon's may be.
  const fd = openSync(left, 'r');
  t.teardown(() => closeSync(fd));
  const plugin = await daemon.add(diff, { id, config });
  t.deepEqual(readdirSync(join(daemon.root, 'state', id, 'mounts')), []);
  t.true(plugin.log.some(({ message }) => message === 'unmounted what an earlier daemon or a crash left'));
});
