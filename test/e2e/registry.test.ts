/** `ctr` between a daemon and a registry on loopback, over plain HTTP: push, pull, and their parts among `ctr content`. One registry for each side. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Transcripts, useBoth } from '../helpers/both.ts';
import { imageLayout, upperLayer, writeDockerArchive, writeOciArchive } from '../helpers/image.ts';
import { lacking, type Need, needing } from '../helpers/privilege.ts';
import { Registry } from '../helpers/registry.ts';

const both = useBoth(test);
const registries: Record<'ours' | 'theirs', Registry> = {
  ours: new Registry(join(both.fixtures, '..', 'registry-ours')),
  theirs: new Registry(join(both.fixtures, '..', 'registry-theirs')),
};

const needs: readonly Need[] = ['root', 'mount', 'program docker-registry'];
const registryTest = needing(...needs).serial;

function baseLayer(dir: string): void {
  for (const name of ['etc', 'tmp', 'bin']) mkdirSync(join(dir, name));
  writeFileSync(join(dir, 'etc/hosts'), 'of the registry test\n');
  symlinkSync('../etc/hosts', join(dir, 'bin/link'));
}
const layers = [baseLayer, upperLayer];
const one = imageLayout({ layers });
const many = imageLayout({ layers, platforms: ['linux/amd64', 'linux/arm64', 'linux/s390x'] });

test.before(async () => {
  if (lacking(...needs) !== undefined) return;
  await Promise.all([registries.ours.start(), registries.theirs.start()]);
  writeOciArchive(join(both.fixtures, 'one.tar'), one, 'example.test/one:1');
  writeOciArchive(join(both.fixtures, 'many.tar'), many, 'example.test/many:1');
  writeDockerArchive(join(both.fixtures, 'docker.tar'), { layers, name: 'example.test/docker:1' });
});
test.after.always(() => Promise.all([registries.ours.stop(), registries.theirs.stop()]));

/** What ctr says when its table of progress was being filled as the work ended. */
const canceled = /^time=.* msg="(?:failed to get content info|active check failed)" error="context canceled"\n/gm;

/** A script with `$REG`: the registry's host, and its port. */
function withRegistry(t: ExecutionContext, script: string): Promise<Transcripts> {
  return both(t, script, {
    env: (side) => ({ REG: registries[side].host }),
    plain: (text) =>
      text
        .replaceAll(/127\.0\.0\.1:\d+/g, 'REGISTRY')
        .replace(/^done: .*s$/gm, 'done')
        .replace(canceled, ''),
  });
}

/** Progress on a terminal's terms: who waits how long for what is chance. */
const quietly = '> $OUT/progress';

registryTest('push, and pull into another namespace', async (t) => {
  const { ours, theirs } = await withRegistry(
    t,
    `
    ctr images import $DIR/one.tar
    ctr images tag example.test/one:1 $REG/app/one:1
    ctr images push --plain-http $REG/app/one:1 ${quietly}
    ctr images push --plain-http $REG/app/two:x example.test/one:1 ${quietly}
    ctr images push --plain-http $REG/app/one:1 ${quietly}
    ctr images push --plain-http $REG/app/none:1 ${quietly}
    ctr images push --plain-http $REG/app/none:1 example.test/none:1 ${quietly}
    ctr images push --plain-http example.test/one:1 nope ${quietly}
    ctr images push ${quietly}
    ctr leases ls
    ctr -n $NS-b images pull --plain-http $REG/app/one:1 ${quietly}
    ctr -n $NS-b images ls
    ctr -n $NS-b images check
    ctr -n $NS-b content ls
    ctr -n $NS-b snapshots tree
    ctr -n $NS-b leases ls
    ctr -n $NS-b images pull --plain-http $REG/app/one:1 ${quietly}
    ctr -n $NS-b images pull --plain-http $REG/app/two:x ${quietly}
    ctr -n $NS-b images ls
    ctr -n $NS-b content ls
    ctr -n $NS-b content active
    ctr -n $NS-b images rm --sync $REG/app/one:1
    ctr -n $NS-b images ls
    ctr -n $NS-b content ls
    ctr -n $NS-b images rm --sync $REG/app/two:x
    ctr -n $NS-b content ls
    ctr -n $NS-b snapshots ls
  `,
  );
  t.true(ours.includes(one.target.digest));
  t.is(ours, theirs);
});

registryTest('pull: flags', async (t) => {
  const { ours, theirs } = await withRegistry(
    t,
    `
    ctr images import --no-unpack --all-platforms $DIR/many.tar
    ctr images push --plain-http $REG/app/many:1 example.test/many:1 ${quietly}
    ctr -n $NS-a images pull --plain-http --print-chainid $REG/app/many:1 | grep -i chain
    ctr -n $NS-a images ls
    ctr -n $NS-a content ls
    ctr -n $NS-a snapshots ls
    ctr -n $NS-b images pull --plain-http --all-platforms --label k=v --label other=w $REG/app/many:1 ${quietly}
    ctr -n $NS-b images ls
    ctr -n $NS-b content ls
    ctr -n $NS-b snapshots ls
    ctr -n $NS-c images pull --plain-http --platform linux/arm64 $REG/app/many:1 ${quietly}
    ctr -n $NS-c images ls
    ctr -n $NS-c images check
    ctr -n $NS-c content ls
    ctr -n $NS-d images pull --plain-http --all-metadata --snapshotter native --max-concurrent-downloads 1 $REG/app/many:1 ${quietly}
    ctr -n $NS-d content ls
    ctr -n $NS-d snapshots ls
    ctr -n $NS-d snapshots --snapshotter native ls
    ctr -n $NS-e images pull --plain-http --platform linux/riscv64 $REG/app/many:1 ${quietly}
    ctr -n $NS-e images pull --plain-http --platform nonsense/x/y/z $REG/app/many:1 ${quietly}
    ctr -n $NS-e images pull --plain-http --snapshotter nope $REG/app/many:1 ${quietly}
    ctr -n $NS-e images ls
    ctr -n $NS-e leases ls
    ctr -n $NS-f images pull --plain-http $REG/app/many@${many.target.digest} ${quietly}
    ctr -n $NS-f images ls
    ctr -n $NS-f images pull --plain-http $REG/app/many@sha256:${'0'.repeat(64)} ${quietly}
  `,
  );
  t.is(ours, theirs);
});

registryTest('pull of what is not there', async (t) => {
  const { ours, theirs } = await withRegistry(
    t,
    `
    ctr images pull --plain-http $REG/app/nothing:1 ${quietly}
    ctr images pull --plain-http 127.0.0.1:1/app/nothing:1 ${quietly}
    ctr images pull $REG/app/nothing:1 2>&1 | grep -c 'server gave HTTP response'
    ctr images pull --plain-http nonsense ${quietly}
    ctr images pull --plain-http '' ${quietly}
    ctr images pull --plain-http $REG/app/nothing ${quietly}
    ctr images ls
    ctr content ls
    ctr content active
    ctr leases ls
    ctr images pull --hosts-dir $OUT --plain-http $REG/app/nothing:1 ${quietly}
  `,
  );
  t.is(ours, theirs);
});

registryTest('push of parts', async (t) => {
  const { ours, theirs } = await withRegistry(
    t,
    `
    ctr images import --no-unpack --all-platforms $DIR/many.tar
    ctr images push --plain-http --platform linux/arm64 $REG/part/arm:1 example.test/many:1 ${quietly}
    ctr -n $NS-a images pull --plain-http --platform linux/arm64 $REG/part/arm:1 ${quietly}
    ctr -n $NS-a images ls
    ctr images push --plain-http --max-concurrent-uploaded-layers 1 $REG/part/whole:1 example.test/many:1 ${quietly}
    ctr -n $NS-b images pull --plain-http --platform linux/s390x $REG/part/whole:1 ${quietly}
    ctr -n $NS-b images ls
    ctr images push --plain-http --platform linux/riscv64 $REG/part/risc:1 example.test/many:1 ${quietly}
    ctr -n $NS-c images import --no-unpack $DIR/many.tar
    ctr -n $NS-c images push --plain-http $REG/part/half:1 example.test/many:1 ${quietly}
    ctr -n $NS-d images import --no-unpack $DIR/docker.tar
    ctr -n $NS-d images push --plain-http $REG/part/docker:1 example.test/docker:1 ${quietly}
    ctr -n $NS-e images pull --plain-http $REG/part/docker:1 ${quietly}
    ctr -n $NS-e images ls
    ctr -n $NS-e content ls
  `,
  );
  t.is(ours, theirs);
});

registryTest('content fetch, fetch-object and push-object', async (t) => {
  const { ours, theirs } = await withRegistry(
    t,
    `
    ctr images import --no-unpack --all-platforms $DIR/many.tar
    ctr images push --plain-http $REG/part/many:1 example.test/many:1 ${quietly}
    ctr -n $NS-a content fetch --plain-http $REG/part/many:1 ${quietly}
    ctr -n $NS-a images ls
    ctr -n $NS-a content ls
    ctr -n $NS-a snapshots ls
    ctr -n $NS-b content fetch --plain-http --all-platforms --label k=v $REG/part/many:1 ${quietly}
    ctr -n $NS-b images ls
    ctr -n $NS-b content ls
    ctr -n $NS-c content fetch --plain-http --metadata-only --all-metadata $REG/part/many:1 ${quietly}
    ctr -n $NS-c content ls
    ctr -n $NS-d content fetch --plain-http --metadata-only --platform linux/arm64 $REG/part/many:1 ${quietly}
    ctr -n $NS-d content ls
    ctr -n $NS-e content fetch --plain-http $REG/part/nothing:1 ${quietly}
    ctr -n $NS-e content ls
    ctr content fetch-object --plain-http $REG/part/many:1 > object; sha256sum < object
    ctr content fetch-object --plain-http $REG/part/many@${many.target.digest} | sha256sum
    ctr content fetch-object --plain-http $REG/part/nothing:1
    ctr content push-object --plain-http $REG/part/loose:1 ${one.layers[0]!.descriptor.digest} ${one.layers[0]!.descriptor.mediaType}
    ctr content push-object --plain-http $REG/part/loose:1 ${one.layers[0]!.descriptor.digest} ${one.layers[0]!.descriptor.mediaType}
    ctr content push-object --plain-http $REG/part/loose:1 sha256:${'0'.repeat(64)} ${one.layers[0]!.descriptor.mediaType}
    ctr content push-object --plain-http $REG/part/loose:1 nonsense ${one.layers[0]!.descriptor.mediaType}
    ctr content push-object --plain-http $REG/part/loose:1
    ctr leases ls
    ctr content active
  `,
  );
  t.is(ours, theirs);
});
