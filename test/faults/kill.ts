/** `kill -9` of the daemon at random moments of the mix, and of its own start. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startRunner } from './clients/containers.ts';
import { clearAll } from './clients/undertaker.ts';
import type { ImageSet } from './images.ts';
import { fullMix, members } from './mix.ts';
import { Random } from './random.ts';
import type { Report } from './report.ts';
import { Rig } from './rig.ts';
import { renderProblem } from './turn.ts';
import { startAndCheck } from './verdict.ts';

export interface KillOptions {
  readonly images: ImageSet;
  readonly seed: number;
  readonly kills: number;
  /** Containers that live through all of it. */
  readonly runners: number;
  /** The longest time from a start to a kill, ms. */
  readonly spanMs?: number;
}

/** One root that is killed on and on; at its end everything is removed, and nothing may be left. */
export async function killRuns(report: Report, options: KillOptions): Promise<void> {
  const { images, seed, kills, runners, spanMs = 3000 } = options;
  const rig = new Rig({ seed: `kill ${seed}`, disk: 'ext4', images });
  const random = new Random(`kill ${seed}`);
  const run = (name: string, work: () => Promise<readonly string[]>) =>
    report.run(
      { scenario: 'kill', name, replay: `--only kill --seed ${seed} --runs ${kills}`, log: () => rig.log },
      work,
    );
  try {
    const ready = await run(`seed ${seed}, before the first`, async () => {
      await rig.start();
      await rig.importBase();
      for (let number = 0; number < runners; number++)
        await rig.once(`runner-${number}`, (turn) => startRunner(turn, `runner-${number}`));
      return rig.warmUp(members(fullMix));
    });
    for (let number = 1; ready && number <= kills; number++) {
      const delay = random.between(5, spanMs);
      const early = random.chance(0.3)
        ? Array.from({ length: random.between(1, 3) }, () => random.between(10, 600))
        : [];
      const name = `seed ${seed}, ${number} of ${kills}, after ${delay} ms${early.length > 0 ? `, then ${early.join(', ')} ms into its start` : ''}`;
      if (!(await run(name, () => killOnce(rig, delay, early)))) return;
    }
    if (!ready) return;
    await run(`seed ${seed}, a quiet life and its end`, () => endQuietly(rig));
  } finally {
    await rig.dispose();
  }
}

/**
 * Kills the daemon so many ms into the mix, and its next starts so many ms into each.
 *
 * @returns what was wrong before, and after it serves again
 */
export async function killOnce(rig: Rig, delay: number, early: readonly number[]): Promise<readonly string[]> {
  const mix = rig.mix(members(fullMix));
  await sleep(delay);
  const before = mix.problems.map(renderProblem);
  await rig.kill(mix);
  for (const moment of early) await killAtStart(rig, moment);
  return [...before, ...(await startAndCheck(rig))];
}

/** Nobody does any harm; then everything is removed, nothing may be left, and the daemon stops as it is told. */
export async function endQuietly(rig: Rig): Promise<readonly string[]> {
  const mix = rig.mix(members(fullMix), 2);
  await mix.finished();
  const problems = mix.problems.map(renderProblem);
  mix.abandon();
  const busy = await rig.check();
  await rig.once('last', clearAll);
  const empty = await rig.check({ empty: true });
  const { code, signal } = await rig.daemon.stop();
  const stopped = code === 0 ? [] : [`the daemon ended with ${code ?? signal}`];
  return [...problems, ...busy.breaches, ...empty.breaches, ...stopped];
}

/** It may be so quick that it serves already. */
async function killAtStart(rig: Rig, moment: number): Promise<void> {
  const started = rig.launch();
  started.catch(() => {});
  await sleep(moment);
  await rig.kill();
}
