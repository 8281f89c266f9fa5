/**
 * What any snapshotter must do behind the Snapshots service, seen only through the API and through mounts. The topics are those that containerd checks
 * its own snapshotters for. Run it over plugins in process, over the bus, over a socket: the factory says how.
 *
 *     snapshotsSuite('overlayfs', async (t) => ({ snapshots, snapshotter: 'overlayfs', scratch }));
 */
import type { ExecutionContext } from 'ava';
import { unlessLacking } from '../helpers/privilege.ts';
import { type SnapshotsUnderTest, Steps } from './snapshots-steps.ts';
import type { Check } from './snapshots-steps.ts';
import { snapshotFilesSuite } from './snapshots-files.ts';
import { snapshotRecordsSuite } from './snapshots-records.ts';

/**
 * @param lack what this snapshotter, or any, needs and this machine has not; the tests are reported as skipped then
 */
export function snapshotsSuite(
  name: string,
  factory: (t: ExecutionContext) => Promise<SnapshotsUnderTest>,
  lack?: string,
): void {
  const declare = unlessLacking(() => lack);
  const check: Check = (title, body) =>
    declare(`${name}: ${title}`, async (t) => body(t, new Steps(t, await factory(t))));

  snapshotRecordsSuite(check);
  snapshotFilesSuite(check);
}
