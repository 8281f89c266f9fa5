/** `trouped registry test` and `trouped content verify` against a daemon that runs. */
import { readdirSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { type Outcome, run } from '../helpers/command.ts';
import { type Daemon, useDaemon } from '../helpers/daemon.ts';
import { useHostile } from '../helpers/hostile-registry.ts';
import { imageLayout, writeOciArchive } from '../helpers/image.ts';
import { useScratch } from '../helpers/scratch.ts';

const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));
const image = imageLayout();

function trouped(daemon: Daemon, ...args: string[]): Promise<Outcome> {
  return run(launcher, ['--address', daemon.address, ...args]);
}

test.serial('registry test: every hop, and what came of it', async (t) => {
  const daemon = await useDaemon(t, {
    config: 'version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\nretry_backoff = "1ms"\n',
  });
  const registry = await useHostile(t, image);
  const reference = `${registry.host}/team/app:1`;
  registry.misbehave({ bearer: Number.POSITIVE_INFINITY });
  const good = await trouped(daemon, 'registry', 'test', '--plain-http', reference);
  t.is(good.code, 0, good.stderr);
  const lines = good.stdout.trim().split('\n');
  t.is(lines.length, 5, good.stdout);
  t.regex(lines[0]!, new RegExp(`^host +http://${registry.host}/v2 +pull,resolve,push,referrers +default$`));
  t.regex(lines[1]!, /^resolve +401 .* HEAD http:.*\/manifests\/1 .*Bearer realm=/);
  t.regex(lines[2]!, /^token +200 .* GET http:.*\/token\?… .*application\/json$/);
  t.regex(lines[3]!, /^resolve +200 .* HEAD http:.*manifest\.v1\+json$/);
  t.is(lines[4], `resolved  ${image.target.digest}  ${image.target.mediaType}  ${image.target.size} bytes`);

  const hosts = useScratch(t, 'certs');
  await run('mkdir', ['-p', join(hosts, 'up.test')]);
  writeFileSync(
    join(hosts, 'up.test/hosts.toml'),
    `server = "http://127.0.0.1:1"\n[host."http://${registry.host}"]\ncapabilities = ["pull", "resolve"]\n`,
  );
  registry.misbehave({ status: Number.POSITIVE_INFINITY });
  const bad = await trouped(daemon, 'registry', 'test', '--hosts-dir', hosts, 'up.test/team/app:1');
  t.is(bad.code, 1);
  t.regex(
    bad.stdout,
    new RegExp(
      `host +http://${registry.host}/v2 +pull,resolve +${hosts}/up.test/hosts.toml\nhost +http://127.0.0.1:1/v2`,
    ),
  );
  t.regex(bad.stdout, /resolve +503 .*\/manifests\/1\?…/);
  t.regex(bad.stdout, /resolve +--- .*ECONNREFUSED/);
  t.regex(bad.stderr, /ECONNREFUSED.*: unavailable/);
  t.regex((await trouped(daemon, 'registry', 'test', 'nonsense')).stderr, /needs a host: invalid argument/);
});

test.serial('content verify: what is damaged is told, and dropped if asked', async (t) => {
  const daemon = await useDaemon(t);
  const archive = join(useScratch(t, 'verify'), 'one.tar');
  writeOciArchive(archive, image, 'example.test/one:1');
  const importIt = () => daemon.ctr(['images', 'import', '--no-unpack', archive]);
  t.is((await importIt()).code, 0);
  // What the import held by its lease alone is collected at some moment of its own; after this it is gone.
  await daemon.ctr(['leases', 'create', '--id', 'swept']);
  t.is((await daemon.ctr(['leases', 'delete', '--sync', 'swept'])).code, 0);
  const blobs = join(daemon.root, 'io.containerd.content.v1.content/blobs/sha256');
  const whole = await trouped(daemon, 'content', 'verify');
  t.is(whole.code, 0);
  t.regex(whole.stdout, new RegExp(`^${readdirSync(blobs).length} blobs, \\d+ bytes, 0 damaged, `));

  const [layer, upper] = [image.layers[0]!.descriptor, image.layers[1]!.descriptor];
  const fileOf = ({ digest }: { digest: string }): string => join(blobs, digest.slice(7));
  unlinkSync(fileOf(layer));
  const bytes = Buffer.from(image.blobs.get(upper.digest)!);
  bytes.writeUInt8(bytes.readUInt8(50) ^ 1, 50);
  unlinkSync(fileOf(upper));
  writeFileSync(fileOf(upper), bytes);
  const told = await trouped(daemon, 'content', 'verify');
  t.is(told.code, 1);
  t.true(told.stdout.includes(`${layer.digest}  its file is missing  (default)\n`), told.stdout);
  t.regex(told.stdout, new RegExp(`${upper.digest}  its bytes have digest sha256:[0-9a-f]{64}  \\(default\\)\n`));
  truncateSync(fileOf(upper), 10);
  const dropped = await trouped(daemon, 'content', 'verify', '--drop');
  t.regex(dropped.stdout, /its file has 10 bytes, not \d+ {2}\(default\) {2}dropped\n/);
  t.regex(dropped.stdout, /2 damaged/);
  t.is((await trouped(daemon, 'content', 'verify')).code, 0);
  t.is((await importIt()).code, 0);
  t.regex((await daemon.ctr(['images', 'check'])).stdout, /complete \(3\/3\)/);
});
