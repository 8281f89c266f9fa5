/** What is judged after every fault. */
import type { Rig } from './rig.ts';

/** The daemon starts and serves, and the checker finds nothing. */
export async function startAndCheck(rig: Rig): Promise<readonly string[]> {
  await rig.start();
  return (await rig.check()).breaches;
}
