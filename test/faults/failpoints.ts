/** Death and an error at every named point of the source: whatever happens there, the next start, or the next call, finds everything in order. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ImageSet } from './images.ts';
import { type Member, members } from './mix.ts';
import type { Report } from './report.ts';
import { Rig } from './rig.ts';
import { renderProblem } from './turn.ts';
import { startAndCheck } from './verdict.ts';

const checkout = join(import.meta.dirname, '../..');

/** Names in the source, each once. */
export function failpoints(): string[] {
  const names = ['kernel/**/*.ts', 'plugins/**/*.ts']
    .flatMap((pattern) => globSync(pattern, { cwd: checkout }))
    .filter((path) => !path.endsWith('.test.ts') && path !== 'kernel/sdk/failpoint.ts')
    .flatMap((path) => [...readFileSync(join(checkout, path), 'utf8').matchAll(/\bfailpoint\(\s*'([^']+)'/g)])
    .map((match) => match[1]!);
  return [...new Set(names)].sort();
}

export type Mode = 'kill' | 'error';

export interface FailpointOptions {
  readonly images: ImageSet;
  readonly seed: number;
  readonly points: readonly string[];
  readonly mode: Mode;
}

/** Who is most likely to get there. When they do not, everybody tries. */
const likely: readonly (readonly [prefix: string, counts: Readonly<Record<string, number>>])[] = [
  ['content.', { contents: 2, leases: 1, sundries: 1, sharers: 1 }],
  ['snapshots.', { snapshots: 2, leases: 1 }],
  ['snapshotter.', { snapshots: 2 }],
  ['diff.diff.', { diffs: 1 }],
  ['diff.', { imports: 1 }],
  ['tasks.', { containers: 1, orphans: 1 }],
  ['records.checkpoint.', { heavy: 1 }],
  ['', { sundries: 2, contents: 1, leases: 1 }],
];
const everybody = {
  imports: 1,
  contents: 1,
  snapshots: 1,
  containers: 1,
  leases: 1,
  runs: 1,
  sundries: 1,
  heavy: 1,
  diffs: 1,
  orphans: 1,
  sharers: 1,
};
/** Only a root that nothing has been written to comes by here. */
const fresh = /^(records\.migrate|system\.uuid)\./;
/** A root is used for so many points, then a new one. */
const pointsPerRoot = 12;
/** How long the daemon has to come by after its clients are done, ms: trash, events, collection. */
const backgroundMs = 5000;

/** @returns points that were not fired: nobody came by, or there was no root to try it on */
export async function failpointRuns(report: Report, options: FailpointOptions): Promise<readonly string[]> {
  const [onFresh, onUsed] = [
    options.points.filter((name) => fresh.test(name)),
    options.points.filter((name) => !fresh.test(name)),
  ];
  const silent = new Set(options.points);
  for (const point of onFresh)
    await withRig(options, async (rig) => void (await runPoint(report, rig, point, options, silent)));
  for (let at = 0, unready = 0; at < onUsed.length && unready < 2; ) {
    await withRig(options, async (rig) => {
      const ready = await report.run(
        {
          scenario: `failpoint ${options.mode}`,
          name: 'before the first',
          replay: '--only failpoints',
          log: () => rig.log,
        },
        async () => {
          await rig.start();
          await rig.importBase();
          const faults = await rig.warmUp(members(everybody));
          await rig.kill();
          return faults;
        },
      );
      unready = ready ? 0 : unready + 1;
      // After a failure the root may be at fault for the next one.
      for (let count = 0, good = ready; good && count < pointsPerRoot && at < onUsed.length; count++)
        good = await runPoint(report, rig, onUsed[at++]!, options, silent);
    });
  }
  return [...silent];
}

async function withRig(options: FailpointOptions, work: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = new Rig({ seed: `failpoints ${options.seed}`, disk: 'tmpfs', images: options.images });
  try {
    await work(rig);
  } finally {
    await rig.dispose();
  }
}

function runPoint(
  report: Report,
  rig: Rig,
  point: string,
  { mode, seed }: FailpointOptions,
  silent: Set<string>,
): Promise<boolean> {
  const replay = `--only failpoints --mode ${mode} --point ${point} --seed ${seed}`;
  const work = mode === 'kill' ? killAt : failAt;
  return report.run({ scenario: `failpoint ${mode}`, name: point, replay, log: () => rig.log }, async () => {
    const { fired, faults } = await work(rig, point);
    if (fired) silent.delete(point);
    await rig.kill();
    return faults;
  });
}

function endsItself(rig: Rig): boolean {
  return rig.log.some((line) => line.includes('the daemon ends itself'));
}

function crews(point: string): Member[][] {
  const first = likely.find(([prefix]) => point.startsWith(prefix))![1];
  return [members(first), members(everybody)];
}

/** What came of a point: whether anybody came by, and what is wrong. */
export interface Shot {
  readonly fired: boolean;
  readonly faults: readonly string[];
}

/** Dies at the point, and starts again. That nobody comes by is a fault. */
export async function killAt(rig: Rig, point: string): Promise<Shot> {
  const env = { TROUPE_FAILPOINTS: `${point}=kill` };
  const serves = await rig.start(env).then(
    () => true,
    (error: Error) => {
      if (!error.message.includes('SIGKILL') || endsItself(rig)) throw error;
      return false;
    },
  );
  const fired = !serves || (await reached(rig, point));
  if (!fired) await rig.kill();
  const faults = await startAndCheck(rig);
  return { fired, faults: fired ? faults : [`no client comes by ${point}`, ...faults] };
}

/** Lets clients work until the daemon is dead. */
async function reached(rig: Rig, point: string): Promise<boolean> {
  const dead = rig.daemon.exited.then(() => true);
  for (const crew of crews(point)) {
    const mix = rig.mix(crew, 3);
    const died = await Promise.race([
      dead,
      mix.finished().then(() => Promise.race([dead, sleep(backgroundMs, false)])),
    ]);
    mix.abandon();
    await mix.finished();
    if (died) return true;
  }
  return false;
}

/** Fails once at the point. An error that nobody mentions may have been dealt with: that the point is passed is known by the deaths there. */
async function failAt(rig: Rig, point: string): Promise<Shot> {
  const marker = `failpoint ${point}`;
  const faults: string[] = [];
  const serves = await rig.start({ TROUPE_FAILPOINTS: `${point}=1*error(${marker})` }).then(
    () => true,
    (error: Error) => {
      if (!error.message.includes(marker)) throw error;
      return false;
    },
  );
  if (!serves) return { fired: true, faults: await startAndCheck(rig) };
  const { pid } = rig.daemon;
  // A plugin that cannot start is shown as failed, with all that need it; whoever reads that starts the daemon again.
  if (rig.log.some((line) => line.includes('plugin failed') && line.includes(marker))) {
    await rig.kill();
    return { fired: true, faults: await startAndCheck(rig) };
  }
  let heard = rig.log.some((line) => line.includes(marker));
  for (const crew of heard ? [] : crews(point)) {
    const mix = rig.mix(crew, 3);
    await mix.finished();
    mix.abandon();
    heard = mix.problems.some((problem) => problem.message.includes(marker));
    heard ||= rig.log.some((line) => line.includes(marker));
    if (heard) break;
  }
  // It has happened once; from now on everything must go well, in the same daemon unless that has ended itself.
  // What ends itself lets its answers out first.
  const ended = await Promise.race([rig.daemon.exited, sleep(endsItself(rig) ? 10_000 : 500, undefined)]);
  if (ended !== undefined) {
    if (!endsItself(rig)) return { fired: heard, faults: [`the daemon ended with ${ended.code ?? ended.signal}`] };
    return { fired: heard, faults: await startAndCheck(rig) };
  }
  const after = rig.mix(crews(point)[0]!, 1);
  await after.finished();
  after.abandon();
  // Every thread counts for itself, so what is in several of them happens once in each.
  const others = after.problems.filter((problem) => !problem.message.includes(marker));
  faults.push(...others.map((problem) => `after the error: ${renderProblem(problem)}`));
  // What an interrupted call left lying may wait for the next start; nothing else may be wrong until then.
  const leftover = /^invariant [346]: /;
  const { breaches } = await rig.check({ settleSeconds: 5 });
  faults.push(...breaches.filter((breach) => !leftover.test(breach)));
  if (rig.daemon.pid !== pid) faults.push(`the daemon is another: pid ${rig.daemon.pid}`);
  if (breaches.some((breach) => leftover.test(breach))) {
    await rig.kill();
    faults.push(...(await startAndCheck(rig)));
  }
  return { fired: heard, faults };
}
