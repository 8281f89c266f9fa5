/** A pull unpacks a layer while it comes. The registry holds the second half back until files of the first lie in the snapshot. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { Failure } from 'troupe/plugin';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { eventually } from '../helpers/eventually.ts';
import { useHostile } from '../helpers/hostile-registry.ts';
import { imageLayout } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';
import { registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const namespace = 'default';
const snapshotter = 'overlayfs';
const host = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
/** Incompressible, so that half of the blob is half of the files. */
const files = Array.from({ length: 16 }, (_, i) => ({
  name: `f${String(i).padStart(2, '0')}`,
  body: randomBytes(1 << 20),
}));
const image = imageLayout({
  layers: [
    (dir) => writeFileSync(join(dir, 'below'), 'below'),
    (dir) => {
      for (const { name, body } of files) writeFileSync(join(dir, name), body);
    },
  ],
});
const layer = image.layers[1]!.descriptor;

async function usePull(t: ExecutionContext) {
  const daemon = await useDaemon(t, {
    config: `version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\nconcurrent_layer_fetch_buffer = 0\nstall_timeout = "60s"\n`,
  });
  const client = new GrpcClient(daemon.address, { namespace });
  t.teardown(() => client.close());
  const registry = await useHostile(t, image, { seed: 3 });
  const snapshots = typedClient(client, SnapshotsDefinition);
  const name = `${registry.host}/team/app:1`;
  const unpacks = [{ platform: host, snapshotter }];
  const pull = () =>
    transfer(client, registryEnd(name, { defaultScheme: 'http' }), storeEnd({ name, platforms: [host], unpacks }), {
      namespace,
    });

  const list = async () => {
    const all = [];
    for await (const { info } of snapshots.list({ snapshotter, filters: [] })) all.push(...info);
    return all;
  };
  /** Upper directory of the layer that is being unpacked; its snapshot has no parent yet. */
  const unpacking = async (): Promise<string[]> => {
    const directories = [];
    for (const each of await list()) {
      if (!each.name.startsWith('extract-')) continue;
      const { mounts } = await snapshots.mounts({ snapshotter, key: each.name }).catch(() => ({ mounts: [] }));
      directories.push(...mounts.map(({ source }) => source));
    }
    return directories;
  };
  const halfThere = () =>
    eventually(t, 'files of the first half in the snapshot', async () =>
      (await unpacking()).some((directory) => existsSync(join(directory, files[3]!.name))),
    );
  const blobThere = async (): Promise<boolean> => {
    const { stdout } = await daemon.ctr(['content', 'ls', '-q'], { namespace });
    return stdout.includes(layer.digest);
  };
  return { daemon, registry, pull, list, halfThere, blobThere, snapshots };
}

rootTest('before its blob is there, and the result is what it would have been', async (t) => {
  const { registry, pull, list, halfThere, blobThere, snapshots } = await usePull(t);
  const rest = Promise.withResolvers<void>();
  registry.misbehave({ half: 1 });
  registry.rest = rest.promise;
  const pulled = pull();
  pulled.catch(() => {});
  await halfThere();
  t.false(await blobThere());
  rest.resolve();
  t.true((await pulled).some(({ event }) => event === 'saved'));
  const made = await list();
  t.is(made.length, 2);
  const top = made.find(({ parent }) => parent !== '')!;
  const { mounts } = await snapshots.view({ snapshotter, key: 'look', parent: top.name, labels: {} });
  const lower = mounts[0]!.options.find((option) => option.startsWith('lowerdir='))!.slice('lowerdir='.length);
  const [directory] = lower.split(':');
  for (const { name, body } of files) t.true(readFileSync(join(directory!, name)).equals(body), name);
});

rootTest('a second half that is wrong: nothing of it is left, and the next pull works', async (t) => {
  const { daemon, registry, pull, list, halfThere } = await usePull(t);
  const rest = Promise.withResolvers<void>();
  registry.misbehave({ half: 2, 'wrong bytes': Number.POSITIVE_INFINITY });
  registry.rest = rest.promise;
  const pulled = pull();
  pulled.catch(() => {});
  await halfThere();
  rest.resolve();
  const why = await t.throwsAsync(pulled);
  t.is((why as Failure).code, 'FailedPrecondition', String(why));
  // The layer below came whole, and is good.
  const bottom = image.layers[0]!.diffId;
  t.deepEqual(
    (await list()).map(({ name }) => name).filter((key) => key !== bottom),
    [],
  );
  const { stdout } = await daemon.ctr(['leases', 'ls', '-q'], { namespace });
  t.is(stdout, '');
  registry.misbehave({});
  t.true((await pull()).some(({ event }) => event === 'saved'));
});
