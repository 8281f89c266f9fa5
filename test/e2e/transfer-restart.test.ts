/** A daemon that dies, and a plugin that is replaced, in the middle of a pull. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { eventually } from '../helpers/eventually.ts';
import { run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { type HostileRegistry, useHostile } from '../helpers/hostile-registry.ts';
import { imageLayout } from '../helpers/image.ts';
import { rootTest } from '../helpers/privilege.ts';
import { registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));
const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const namespace = 'default';
const image = imageLayout({ layers: [(dir) => writeFileSync(join(dir, 'large'), randomBytes(4 << 20))] });
const layer = image.layers[0]!.descriptor;

function config(more: string): string {
  return `version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\nretry_backoff = "1ms"\n${more}`;
}

async function pull(daemon: Daemon, registry: HostileRegistry): Promise<string[]> {
  const client = new GrpcClient(daemon.address);
  try {
    const name = `${registry.host}/team/app:1`;
    const unpacks = [{ platform, snapshotter: 'overlayfs' }];
    const seen = await transfer(
      client,
      registryEnd(name, { defaultScheme: 'http' }),
      storeEnd({ name, platforms: [platform], unpacks }),
      { namespace },
    );
    return seen.map(({ event }) => event);
  } finally {
    client.close();
  }
}

/** Bytes of the layer that the daemon has stored; waits for the first. */
async function arrived(t: ExecutionContext, daemon: Daemon): Promise<bigint> {
  const client = new GrpcClient(daemon.address);
  t.teardown(() => client.close());
  let offset = 0n;
  await eventually(t, 'some of the layer is there', async () => {
    const { statuses } = await typedClient(client, ContentDefinition).listStatuses({ filters: [] }, { namespace });
    offset = statuses.find(({ ref }) => ref === `layer-${layer.digest}`)?.offset ?? 0n;
    return offset > 0n;
  });
  return offset;
}

rootTest.serial('kill -9 in the middle of a layer: the next pull goes on where the file ends', async (t) => {
  const daemon = await useDaemon(t, { config: config('stall_timeout = "0"\n') });
  const registry = await useHostile(t, image);
  registry.misbehave({ stall: 1 });
  const pulling = pull(daemon, registry).catch((error: Error) => error);
  await arrived(t, daemon);
  await daemon.stop('SIGKILL');
  t.true((await pulling) instanceof Error);

  await daemon.start();
  const offset = await arrived(t, daemon);
  registry.misbehave({});
  t.true((await pull(daemon, registry)).includes('saved'));
  t.deepEqual(registry.ranges().filter(Boolean), [`bytes=${offset}-${layer.size - 1}`]);
  t.regex((await daemon.ctr(['images', 'check'])).stdout, /complete \(2\/2\).* true/);
});

rootTest.serial(
  'a plugin that is reloaded in the middle of a pull finishes it, and the next pull is the new one’s',
  async (t) => {
    const daemon = await useDaemon(t, { config: config('stall_timeout = "4s"\n') });
    const registry = await useHostile(t, image);
    registry.misbehave({ stall: 1 });
    const pulling = pull(daemon, registry);
    await arrived(t, daemon);
    for (const id of ['io.containerd.transfer.v1.local', 'io.containerd.streaming.v1.manager']) {
      const reloaded = await run(launcher, ['--address', daemon.address, 'plugins', 'reload', '--force', id]);
      t.is(reloaded.code, 0, reloaded.stderr);
    }
    t.true((await pulling).includes('saved'));
    t.true((await pull(daemon, registry)).includes('already exists'));
  },
);
