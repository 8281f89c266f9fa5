/**
 * `npm run faults`: breaks the daemon in every way that is promised to be survived, and lets the checker look at what is left.
 *
 *     --only kill|failpoints|power|full|files|stores   one of them (may be given several times)
 *     --seed N                                  the first seed; default 1
 *     --runs N                                  kills or power cuts in all; with one seed's batch the same ones again
 *     --point NAME                              only this failpoint (may be given several times)
 *     --mode kill|error                         only this of the two things that a failpoint does
 *     --logs DIRECTORY                          keep the daemon's whole log of every run that fails
 *
 *   kill        kill -9 at random moments while clients of all kinds work, and in the daemon's start
 *   failpoints  death and an error at every named point in the source
 *   power       an ext4 that loses what was not synced
 *   full        a disk with no space left
 *   files       a limit of open files that is reached
 *   stores      the crash tests of content, records and snapshots alone, of which the suite has some points a day, at all of theirs
 *
 * Ends with `N passed, N failed`, and with 1 when anything was found, or a failpoint was not fired. Asks for root.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { failpointRuns, failpoints } from './failpoints.ts';
import { filesRuns } from './files.ts';
import { fullRun } from './full.ts';
import { makeImages } from './images.ts';
import { killRuns } from './kill.ts';
import { powerRuns } from './power.ts';
import { Report } from './report.ts';
import { crowdedStarts, disposeAll } from './rig.ts';
import { storesRuns } from './stores.ts';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    seed: { type: 'string', default: '1' },
    runs: { type: 'string' },
    point: { type: 'string', multiple: true, default: [] },
    logs: { type: 'string' },
    mode: { type: 'string', multiple: true, default: ['kill', 'error'] },
  },
});
const scenarios = ['kill', 'failpoints', 'power', 'full', 'files', 'stores'];
const unknown = values.only.filter((name) => !scenarios.includes(name));
if (unknown.length > 0) {
  console.error(`faults: ${unknown.join(', ')}: no such scenario; there are ${scenarios.join(', ')}`);
  process.exit(2);
}
if (process.getuid?.() !== 0) {
  console.error('faults: asks for root: it mounts file systems, and runs containers');
  process.exit(2);
}
const wanted = (name: string): boolean => values.only.length === 0 || values.only.includes(name);
const seed = Number(values.seed);
const count = (whole: number): number => (values.runs === undefined ? whole : Number(values.runs));

const directory = mkdtempSync('/dev/shm/troupe-fault-images-');
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    rmSync(directory, { recursive: true, force: true });
    void disposeAll().finally(() => process.exit(1));
  });
}
const report = new Report(values.logs);
try {
  const images = makeImages(join(directory, 'images'), 3);
  if (wanted('kill')) {
    // A root of its own for every ten, so that a failure can be had again in a minute.
    for (let left = count(50), batch = 0; left > 0; left -= 10, batch++)
      await killRuns(report, { images, seed: seed + batch, kills: Math.min(10, left), runners: 3 });
  }
  if (wanted('failpoints')) {
    const points = values.point.length > 0 ? values.point : failpoints();
    for (const mode of ['kill', 'error'] as const) {
      if (!values.mode.includes(mode)) continue;
      const silent = await failpointRuns(report, { images, seed, points, mode });
      const count = `failpoints, ${mode}: ${points.length - silent.length} of ${points.length} fired`;
      // An error that the daemon deals with is told to nobody; a death cannot be missed.
      report.conclude(
        silent.length === 0 ? count : `${count}, not ${silent.join(' ')}`,
        mode === 'error' || silent.length === 0,
      );
    }
  }
  if (wanted('power')) {
    for (let left = count(25), batch = 0; left > 0; left -= 5, batch++)
      await powerRuns(report, { images, seed: seed + batch, cuts: Math.min(5, left) });
  }
  if (wanted('full')) for (const disk of ['tmpfs', 'ext4'] as const) await fullRun(report, { images, seed, disk });
  if (wanted('stores')) await storesRuns(report);
  if (wanted('files')) await filesRuns(report, { images, seed, spare: [200, 50, 20, 8, 2, 0] });
} finally {
  rmSync(directory, { recursive: true, force: true });
}
if (crowdedStarts() > 0) report.conclude(`starts tried again on a machine that was too busy: ${crowdedStarts()}`, true);
console.log(report.summary());
process.exitCode = report.good ? 0 : 1;
