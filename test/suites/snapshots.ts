/**
 * What any snapshotter must do behind the Snapshots service, seen only through the API and through mounts. The topics are those that containerd checks
 * its own snapshotters for. Run it over plugins in process, over the bus, over a socket: the factory says how.
 *
 *     snapshotsSuite('overlayfs', async (t) => ({ snapshots, snapshotter: 'overlayfs', scratch }));
 */
import test, { type ExecutionContext } from 'ava';
import { type SnapshotsUnderTest, Steps } from './snapshots-steps.ts';
import type { Check } from './snapshots-steps.ts';
import { snapshotFilesSuite } from './snapshots-files.ts';
import { snapshotRecordsSuite } from './snapshots-records.ts';

/**
 * @param skip why this snapshotter, or any, does not work on this machine; the tests are reported as skipped then.
 */
export function snapshotsSuite(
  name: string,
  factory: (t: ExecutionContext) => Promise<SnapshotsUnderTest>,
  skip?: string,
): void {
  const check: Check = (title, body) => {
    if (skip !== undefined) test.skip(`${name}: ${title} (skipped: ${skip})`, () => {});
    else test(`${name}: ${title}`, async (t) => body(t, new Steps(t, await factory(t))));
  };

  snapshotRecordsSuite(check);
  snapshotFilesSuite(check);
}
