/** What is judged after every fault. */
import type { Problem } from './turn.ts';
import type { Rig } from './rig.ts';

/** The daemon starts and serves, and the checker finds nothing. */
export async function startAndCheck(rig: Rig, options: { powerCut?: boolean } = {}): Promise<readonly string[]> {
  await rig.start();
  return (await rig.check(options)).breaches;
}

export function renderProblem({ client, call, code, message }: Problem): string {
  return `${client}: ${call}: ${code}: ${message}`;
}
