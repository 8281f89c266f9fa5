/**
 * The judge of a fault run: a program of its own that shares no code with the daemon, and looks at what a client and what an operator can see.
 *
 *     main.ts --root R --state S --address A --pid P --oracle DIR --fixtures FILE
 *             [--namespace NS]… [--baseline FDS:THREADS] [--empty] [--settle SECONDS]
 *
 *      1  no acknowledged record is lost            7  shims, bundles, runc's states and cgroups are the tasks'; no zombie, no runc
 *      2  nothing is there that nobody asked for     8  long-running containers kept their process, and count without a gap
 *      3  blobs are files of their size and digest  10  descriptors and threads are back to idle
 *      4  snapshots are directories, whole          11  permissions
 *      5  mounts are the tasks'                     12  the database holds together
 *      6  ingests are directories, offsets sizes
 *
 * With --empty nothing may be left at all, since clients have removed everything.
 * Prints a line per breach, and ends with 0 when there is none, 1 when there are, 2 when it could not look.
 */
import { parseArgs } from 'node:util';
import { renderBreach } from './breach.ts';
import { check } from './check.ts';
import { readFixtures } from './fixtures.ts';
import { readOracle } from './oracle.ts';

const { values } = parseArgs({
  options: {
    root: { type: 'string' },
    state: { type: 'string' },
    address: { type: 'string' },
    pid: { type: 'string' },
    oracle: { type: 'string' },
    fixtures: { type: 'string' },
    namespace: { type: 'string', multiple: true, default: [] },
    baseline: { type: 'string' },
    empty: { type: 'boolean', default: false },
    settle: { type: 'string', default: '10' },
  },
});
const { root, state, address, pid, oracle, fixtures } = values;
if (!root || !state || !address || !pid || !oracle || !fixtures) {
  console.error('checker: needs --root, --state, --address, --pid, --oracle and --fixtures');
  process.exit(2);
}
const [descriptors, threads] = (values.baseline ?? '').split(':').map(Number);
try {
  const breaches = await check(
    {
      root,
      state,
      address,
      pid: Number(pid),
      namespaces: values.namespace,
      oracle: readOracle(oracle),
      fixtures: readFixtures(fixtures),
      empty: values.empty,
      baseline: descriptors && threads ? { descriptors, threads } : undefined,
    },
    Number(values.settle) * 1000,
  );
  for (const breach of breaches) console.log(renderBreach(breach));
  process.exitCode = breaches.length > 0 ? 1 : 0;
} catch (error) {
  console.error(`checker: ${error instanceof Error ? error.stack : error}`);
  process.exitCode = 2;
}
