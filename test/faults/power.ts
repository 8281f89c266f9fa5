/** Power cuts: the disk loses what was not synced, the daemon dies, and its state directory is as empty as after a boot. */
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ImageSet } from './images.ts';
import { diskMix, members } from './mix.ts';
import { Random } from './random.ts';
import type { Report } from './report.ts';
import { Rig } from './rig.ts';
import { renderProblem } from './turn.ts';
import { startAndCheck } from './verdict.ts';

export interface PowerOptions {
  readonly images: ImageSet;
  readonly seed: number;
  readonly cuts: number;
  readonly spanMs?: number;
}

export async function powerRuns(report: Report, { images, seed, cuts, spanMs = 3000 }: PowerOptions): Promise<void> {
  const rig = new Rig({ seed: `power ${seed}`, disk: 'ext4', images });
  const random = new Random(`power ${seed}`);
  const run = (name: string, work: () => Promise<readonly string[]>) =>
    report.run(
      { scenario: 'power cut', name, replay: `--only power --seed ${seed} --runs ${cuts}`, log: () => rig.log },
      work,
    );
  try {
    const ready = await run(`seed ${seed}, before the first`, async () => {
      await rig.start();
      await rig.importBase();
      return rig.warmUp(members(diskMix));
    });
    for (let number = 1; ready && number <= cuts; number++) {
      const delay = random.between(50, spanMs);
      const name = `seed ${seed}, ${number} of ${cuts}, after ${delay} ms`;
      if (!(await run(name, () => cutOnce(rig, delay)))) return;
    }
  } finally {
    await rig.dispose();
  }
}

/** Cuts the power so many ms into the mix. There may be no containers: their mounts would keep the disk. */
export async function cutOnce(rig: Rig, delay: number): Promise<readonly string[]> {
  const mix = rig.mix(members(diskMix));
  await sleep(delay);
  const problems = mix.problems.map(renderProblem);
  await cut(rig, () => rig.kill(mix));
  return [...problems, ...(await startAndCheck(rig))];
}

/** @throws Error when the file system itself is damaged by it */
async function cut(rig: Rig, kill: () => Promise<void>): Promise<void> {
  rig.disk.cut();
  await kill();
  await rig.disk.unmount();
  // Mounting replays the journal; what is left after it must hold together.
  rig.disk.mount();
  await rig.disk.unmount();
  rig.disk.verify();
  rig.disk.mount();
  rig.tell({ say: 'power cut' });
  rmSync(rig.daemon.state, { recursive: true, force: true });
}
