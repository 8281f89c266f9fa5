/** Kills the shim of a container that runs: the daemon must notice, end what the shim left, and forget the task. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import { processes } from '../checker/processes.ts';
import type { Turn } from '../turn.ts';
import { bury, create } from './containers.ts';

const patienceMs = 60_000;

export async function orphans(turn: Turn): Promise<void> {
  const id = turn.unique('c');
  await create(turn, id, ['sleep', '1000'], '');
  await turn.call('tasks.start', () => turn.tasks.start({ containerId: id, execId: '' }));
  const shim = processes().find(
    ({ argv }) => argv[0]?.includes('shim') && argv.includes(turn.ground.address) && argv.includes(id),
  );
  if (shim === undefined) throw new Error(`container ${id} has no shim`);
  await turn.ask('death of a shim', [{ object: turn.object('task', id), state: null }], async () => {
    process.kill(shim.pid, 'SIGKILL');
    const end = performance.now() + patienceMs;
    while (await isThere(turn, id)) {
      if (performance.now() > end) throw new Failure('Unknown', `task ${id} is there ${patienceMs} ms after its shim`);
      await sleep(100);
    }
  });
  await bury(turn, id);
}

async function isThere(turn: Turn, containerId: string): Promise<boolean> {
  try {
    await turn.tasks.get({ containerId, execId: '' });
    return true;
  } catch (error) {
    if (Failure.is(error, 'NotFound')) return false;
    // Between the shim's death and the cleaning-up nobody can say.
    if (Failure.is(error, 'Unavailable') && !turn.ended) return true;
    throw error;
  }
}
