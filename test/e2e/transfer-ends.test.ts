/** Other ends of a transfer, in a real daemon: from a name to a name, from a stream to a stream, and from the store to a registry. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { ImageExportStream, ImageImportStream } from 'troupe/proto/containerd/types/transfer/archive.ts';
import { typedClient } from '../../kernel/front/client.ts';
import { byAnnotation, image, importBytes, useRig } from '../helpers/archives.ts';
import { writeOciArchive } from '../helpers/image.ts';
import { needing, rootTest } from '../helpers/privilege.ts';
import { Registry } from '../helpers/registry.ts';
import { OpenedStream, pack, registryEnd, storeEnd, transfer } from '../helpers/transfer.ts';

rootTest.serial('tag, and echo of a stream', async (t) => {
  const rig = await useRig(t);
  const file = join(rig.dir, 'one.tar');
  writeOciArchive(file, image, 'example.test/one:1');
  await importBytes(rig, readFileSync(file), { extraReferences: byAnnotation });
  await transfer(rig.client, storeEnd({ name: 'example.test/one:1' }), storeEnd({ name: 'other/name' }), {});
  t.deepEqual((await rig.daemon.ctr(['images', 'ls', '-q'])).stdout.trim().split('\n'), [
    'example.test/one:1',
    'other/name',
  ]);
  await t.throwsAsync(transfer(rig.client, storeEnd({ name: 'none' }), storeEnd({ name: 'x' }), {}), {
    message: /not found/,
  });
  await t.throwsAsync(transfer(rig.client, registryEnd('a.test/b:1'), registryEnd('a.test/b:1'), {}), {
    message: /unable to transfer from OCI Registry/,
  });

  const bytes = randomBytes(3_000_001);
  const [from, to] = [
    await OpenedStream.open(rig.client, 'echo-in', {}),
    await OpenedStream.open(rig.client, 'echo-out', {}),
  ];
  const [received] = await Promise.all([
    to.receiveBytes(),
    from.sendBytes(bytes),
    typedClient(rig.client, TransferDefinition).transfer({
      source: pack(ImageImportStream, { stream: from.id }),
      destination: pack(ImageExportStream, { stream: to.id }),
      options: undefined,
    }),
  ]);
  t.true(received.equals(bytes));
  from.close();
  to.close();
});

needing('root', 'mount', 'program docker-registry').serial(
  'push, push again, mount from another repository, and pull it back with ctr',
  async (t) => {
    const rig = await useRig(t);
    const registry = await new Registry(join(rig.dir, 'registry')).start();
    t.teardown(() => registry.stop());
    const file = join(rig.dir, 'one.tar');
    writeOciArchive(file, image, 'example.test/one:1');
    await importBytes(rig, readFileSync(file), { extraReferences: byAnnotation });
    const push = (repository: string, name = 'example.test/one:1') =>
      transfer(rig.client, storeEnd({ name }), registryEnd(`${registry.host}/${repository}:1`), {});
    const layer = `layer-${image.layers[0]!.descriptor.digest}`;
    const last = (seen: Awaited<ReturnType<typeof push>>, name: string) =>
      seen.findLast((each) => each.name === name)?.event;
    t.is(last(await push('app/one'), layer), 'complete');
    t.is(last(await push('app/one'), layer), 'already exists');

    const name = `${registry.host}/app/one:1`;
    const { code, stderr } = await rig.daemon.ctr(['images', 'pull', '--plain-http', name], { namespace: 'theirs' });
    t.is(code, 0, stderr);
    await transfer(rig.client, registryEnd(name), storeEnd({ name }), {});
    const before = registry.log.length;
    t.is(last(await push('app/two', name), layer), 'already exists');
    t.false(
      registry.log.slice(before).some((line) => /PATCH|PUT .*blobs/.test(line)),
      'nothing was uploaded',
    );
  },
);
