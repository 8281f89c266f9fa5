/** Transfer in a real daemon with a real registry beside it: what is pulled is what ctr would have pulled, and what it can use. */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { GrpcClient } from '../../kernel/front/client.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { imageLayout, writeOciArchive } from '../helpers/image.ts';
import { needing } from '../helpers/privilege.ts';
import { Registry } from '../helpers/registry.ts';
import { useScratch } from '../helpers/scratch.ts';
import { registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

const registryTest = needing('root', 'mount', 'program docker-registry');

const host = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', variant: '' };
const other = host.architecture === 'arm64' ? 'linux/amd64' : 'linux/arm64';
const image = imageLayout();
const many = imageLayout({ platforms: [`${host.os}/${host.architecture}`, other] });

async function withRegistry(t: ExecutionContext): Promise<{ daemon: Daemon; client: GrpcClient; host: string }> {
  const dir = useScratch(t, 'transfer');
  const registry = await new Registry(join(dir, 'registry')).start();
  t.teardown(() => registry.stop());
  const daemon = await useDaemon(t, {
    config: 'version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\n',
  });
  const client = new GrpcClient(daemon.address, { namespace: 'default' });
  t.teardown(() => client.close());
  for (const [name, layout] of [
    ['one', image],
    ['many', many],
  ] as const) {
    writeOciArchive(join(dir, `${name}.tar`), layout, `example.test/${name}:1`);
    for (const args of [
      ['images', 'import', '--no-unpack', '--all-platforms', join(dir, `${name}.tar`)],
      ['images', 'push', '--plain-http', `${registry.host}/app/${name}:1`, `example.test/${name}:1`],
    ]) {
      const { code, stderr } = await daemon.ctr(args, { namespace: 'seed' });
      t.is(code, 0, stderr);
    }
  }
  await daemon.ctr(['namespaces', 'remove', 'seed']);
  return { daemon, client, host: registry.host };
}

registryTest('pull and unpack: image, content and snapshots are those of ctr', async (t) => {
  const { daemon, client, host: registry } = await withRegistry(t);
  const name = `${registry}/app/one:1`;
  const seen = await transfer(
    client,
    registryEnd(name),
    storeEnd({ name, labels: { k: 'v' }, platforms: [host], unpacks: [{ platform: host, snapshotter: 'overlayfs' }] }),
    { namespace: 'ours' },
  );
  const pulled = await daemon.ctr(['images', 'pull', '--plain-http', '--label', 'k=v', name], { namespace: 'theirs' });
  t.is(pulled.code, 0, pulled.stderr);
  for (const args of [
    ['images', 'ls'],
    ['content', 'ls'],
    ['snapshots', 'ls'],
    ['leases', 'ls', '-q'],
    ['content', 'active'],
  ]) {
    const [ours, theirs] = await Promise.all(['ours', 'theirs'].map((namespace) => daemon.ctr(args, { namespace })));
    t.is(plain(ours!.stdout), plain(theirs!.stdout), args.join(' '));
    t.is(ours!.code, 0);
  }
  t.deepEqual(
    seen.filter(({ event }) => /^[A-Z]|saved|fetching/.test(event)).map(({ event, name: of }) => [event, of]),
    [
      [`Resolving from OCI Registry (${name})`, ''],
      [`Pulling from OCI Registry (${name})`, ''],
      ['fetching image content', name],
      ['saved', name],
      [`Completed pull from OCI Registry (${name})`, ''],
    ],
  );
  const layer = `layer-${image.layers[0]!.descriptor.digest}`;
  t.deepEqual(seen.findLast((each) => each.name === layer)?.parents, [`manifest-${image.target.digest}`]);
  t.deepEqual(seen.findLast((each) => each.name === layer)?.progress, BigInt(image.layers[0]!.descriptor.size));

  const ran = await daemon.ctr(['run', '--rm', name, 'c', 'cat', '/etc/motd'], { namespace: 'ours' });
  t.is(ran.stdout, 'hello from the second layer\n', ran.stderr);
});

registryTest('pull of one platform, and of all', async (t) => {
  const { daemon, client, host: registry } = await withRegistry(t);
  const name = `${registry}/app/many:1`;
  await transfer(client, registryEnd(name), storeEnd({ name, platforms: [host] }), { namespace: 'one' });
  await transfer(client, registryEnd(name), storeEnd({ name }), { namespace: 'all' });
  const count = async (namespace: string) =>
    (await daemon.ctr(['content', 'ls', '-q'], { namespace })).stdout.trim().split('\n').length;
  t.is(await count('one'), 1 + 2 + image.layers.length);
  t.is(await count('all'), 1 + 4 + image.layers.length);
  await t.throwsAsync(
    transfer(client, registryEnd(name), storeEnd({ name, platforms: [{ os: 'linux', architecture: 'riscv64' }] }), {
      namespace: 'none',
    }),
    { message: /no match for platform in manifest/ },
  );
  t.is((await daemon.ctr(['images', 'ls', '-q'], { namespace: 'none' })).stdout, '');
  t.is((await daemon.ctr(['leases', 'ls', '-q'], { namespace: 'none' })).stdout, '');
});

/** Ages differ, and labels come in any order. */
function plain(text: string): string {
  return text
    .replaceAll(/\d+ (?:milli)?seconds?|Less than a second|About a minute|\d+ minutes?/g, 'AGE')
    .replaceAll(/\S+=\S+/g, (labels) => labels.split(',').sort().join(','))
    .replaceAll(/[ \t]+/g, ' ');
}
