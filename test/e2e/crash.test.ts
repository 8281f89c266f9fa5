/**
 * The short form of `npm run faults`: a power cut, two kills and two failpoints on one root, and nothing left of it at the end. Every day has
 * its own seed, so that in time many moments are tried; `TROUPE_FAULTS_SEED` has one again.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { startRunner } from '../faults/clients/containers.ts';
import { failpoints, killAt } from '../faults/failpoints.ts';
import { makeImages } from '../faults/images.ts';
import { endQuietly, killOnce } from '../faults/kill.ts';
import { diskMix, fullMix, members } from '../faults/mix.ts';
import { cutOnce } from '../faults/power.ts';
import { Random } from '../faults/random.ts';
import { Rig } from '../faults/rig.ts';
import { seed } from '../faults/sample.ts';
import { needing } from '../helpers/privilege.ts';

const crashTest = needing('root', 'mount', 'loop', 'cgroup', 'program ctr', 'program runc');
/** Points that the records' and the snapshots' own crash tests do not stand for: of services, whose order is across several plugins. */
const points = failpoints().filter((name) => /^(content|images|containers|tasks|diff)\./.test(name));

test('there are points to die at', (t) => {
  t.true(points.length >= 30, `${points}`);
});

crashTest.serial('what was acknowledged is there after every crash, and nothing else', async (t) => {
  t.timeout(300_000);
  t.log(`seed ${seed}`);
  const random = new Random(`crash ${seed}`);
  const directory = mkdtempSync(join(tmpdir(), 'troupe-crash-images-'));
  const rig = new Rig({ seed: `crash ${seed}`, disk: 'ext4', images: makeImages(join(directory, 'images'), 3) });
  t.teardown(async () => {
    await rig.dispose();
    rmSync(directory, { recursive: true, force: true });
  });
  const step = async (name: string, work: () => Promise<readonly string[]>): Promise<void> => {
    const faults = await work();
    t.deepEqual(faults, [], `${name}, seed ${seed}:\n${rig.log.slice(-30).join('\n')}`);
  };
  await step('before', async () => {
    await rig.start();
    await rig.importBase();
    return rig.warmUp(members(diskMix));
  });
  const moment = (): number => random.between(100, 1500);
  // Before there are containers: their mounts would keep the disk.
  await step('power cut', () => cutOnce(rig, moment()));
  await step('a runner', async () => {
    await rig.once('runner-0', (turn) => startRunner(turn, 'runner-0'));
    return rig.warmUp(members(fullMix));
  });
  await step('kill', () => killOnce(rig, moment(), []));
  await step('kill, and again while it starts', () => killOnce(rig, moment(), [random.between(10, 600)]));
  for (const point of [random.pick(points), random.pick(points)])
    await step(point, async () => (await killAt(rig, point)).faults);
  await step('its end', () => endQuietly(rig));
});

crashTest.serial('the checker sees what is wrong with a real root', async (t) => {
  t.timeout(120_000);
  const directory = mkdtempSync(join(tmpdir(), 'troupe-crash-images-'));
  const rig = new Rig({ seed: 'damage', disk: 'tmpfs', images: makeImages(join(directory, 'images'), 0) });
  t.teardown(async () => {
    await rig.dispose();
    rmSync(directory, { recursive: true, force: true });
  });
  await rig.start();
  await rig.importBase();
  t.deepEqual((await rig.check()).breaches, []);
  writeFileSync(join(rig.daemon.root, 'io.containerd.content.v1.content/blobs/sha256/stray'), 'x', { mode: 0o444 });
  await rig.once('forgetful', async (turn) => {
    // Told by nobody: the record appears, and the oracle does not know of it.
    await turn.leases.create({ id: 'phantom', labels: {} });
  });
  const { breaches } = await rig.check({ settleSeconds: 1 });
  t.is(breaches.length, 2, breaches.join('\n'));
  t.regex(breaches.join('\n'), /invariant 2: lease\/.*phantom/);
  t.regex(breaches.join('\n'), /invariant 3: .*stray: is a file that no record names/);
});
