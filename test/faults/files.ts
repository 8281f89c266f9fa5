/** A limit of open files that is reached: calls say so, the daemon stays, and with files to open again all is well. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { measureResources } from './checker/resources.ts';
import type { ImageSet } from './images.ts';
import { fullMix, members } from './mix.ts';
import type { Report } from './report.ts';
import { Rig } from './rig.ts';
import { renderProblem } from './turn.ts';

export interface FilesOptions {
  readonly images: ImageSet;
  readonly seed: number;
  /** Descriptors left to open, one run each. */
  readonly spare: readonly number[];
}

export async function filesRuns(report: Report, { images, seed, spare }: FilesOptions): Promise<void> {
  const rig = new Rig({ seed: `files ${seed}`, disk: 'tmpfs', images });
  const run = (name: string, work: () => Promise<readonly string[]>) =>
    report.run({ scenario: 'open files', name, replay: `--only files --seed ${seed}`, log: () => rig.log }, work);
  try {
    const ready = await run('before', async () => {
      await rig.start();
      await rig.importBase();
      return rig.warmUp(members(fullMix));
    });
    for (const left of ready ? spare : []) {
      const went = await run(`${left} left`, () => starve(rig, left));
      if (!went) return;
    }
  } finally {
    await rig.dispose();
  }
}

async function starve(rig: Rig, left: number): Promise<string[]> {
  const { pid } = rig.daemon;
  const ample = softLimit(pid);
  limit(pid, measureResources(pid).descriptors + left);
  const mix = rig.mix(members(fullMix));
  await sleep(5000);
  limit(pid, ample);
  await mix.stop();
  // With no descriptor to accept a connection, its client sees none; what a call on an open one is told must name the reason.
  const wrong = mix.problems.filter(
    ({ code, message }) =>
      code !== 'Unavailable' && !/too many open files|EMFILE|connection|broken pipe|unavailable/i.test(message),
  );
  const after = rig.mix(members(fullMix), 1);
  await after.finished();
  after.abandon();
  const { breaches } = await rig.check();
  const stays = rig.daemon.pid === pid && (await Promise.race([rig.daemon.exited.then(() => false), sleep(0, true)]));
  return [
    ...wrong.map(renderProblem),
    ...after.problems.map((problem) => `afterwards: ${renderProblem(problem)}`),
    ...breaches,
    ...(stays ? [] : ['the daemon did not stay']),
  ];
}

/** Of open files; Node raises it to the hard one when it starts. */
function softLimit(pid: number): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))!;
  return Number(soft);
}

/** The soft one: the hard one could not be raised again. */
function limit(pid: number, files: number): void {
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(pid), `--nofile=${files}:`], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`prlimit: ${stderr}`);
}
