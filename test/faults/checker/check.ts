/** One look at everything, and looks until what may settle has settled. */
import { setTimeout as sleep } from 'node:timers/promises';
import { checkAcknowledged } from './acknowledged.ts';
import { checkBlobs } from './blobs.ts';
import { type Breach, Ledger, renderBreach } from './breach.ts';
import { checkContainers } from './containers.ts';
import { readRows } from './database.ts';
import { checkIngests } from './ingests.ts';
import { list } from './listing.ts';
import { checkMounts } from './mounts.ts';
import { checkPermissions } from './permissions.ts';
import { checkProcesses } from './processes.ts';
import { checkResources } from './resources.ts';
import { checkSnapshots } from './snapshots.ts';
import type { Picture, Subject } from './subject.ts';

export function checkPicture(picture: Picture): Breach[] {
  const store = new Ledger(12);
  if (picture.rows.integrity !== 'ok') store.breach('records.db', picture.rows.integrity);
  return [
    ...checkAcknowledged(picture),
    ...checkBlobs(picture),
    ...checkSnapshots(picture),
    ...checkMounts(picture),
    ...checkIngests(picture),
    ...checkProcesses(picture),
    ...checkContainers(picture),
    ...checkResources(picture),
    ...checkPermissions(picture),
    ...store.breaches,
  ];
}

/** Looks until nothing is wrong or `settleMs` are over. Breaches that cannot settle are found at the first look, and stay found. */
export async function check(subject: Subject, settleMs: number): Promise<Breach[]> {
  const end = performance.now() + settleMs;
  const forGood = new Map<string, Breach>();
  for (;;) {
    // The rows first: what the daemon removes between the two looks is then missing in the later one, and is looked at again.
    const rows = readRows(subject.root);
    const breaches = checkPicture({ ...subject, rows, listing: await list(subject.address) });
    for (const breach of breaches) if (!breach.settles) forGood.set(renderBreach(breach), breach);
    const unsettled = breaches.filter((breach) => breach.settles);
    if (unsettled.length === 0 || performance.now() > end) return [...forGood.values(), ...unsettled];
    await sleep(250);
  }
}
