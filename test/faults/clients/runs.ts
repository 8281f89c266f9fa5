/** `ctr run --rm` from its beginning to its end: what a user sees of it is that nothing is left. */
import { Failure } from 'troupe/plugin';
import type { Turn } from '../turn.ts';

export async function runs(turn: Turn): Promise<void> {
  const id = turn.unique('run');
  const things = [turn.object('container', id), turn.object('snapshot', 'overlayfs', id), turn.object('task', id)];
  const asked = { call: 'ctr run --rm', word: `word-${turn.random.between(0, 1e9)}` };
  // Whatever moment of it is the last, each of them is there or not.
  turn.suppose(things.map((object) => ({ object, state: {} })));
  await turn.askInSteps(
    asked.call,
    things.map((object) => ({ object, state: null })),
    async () => {
      const output = await turn.ctr('run', '--rm', turn.ground.base.name, id, 'echo', asked.word);
      // It ends well although it could not clean up: of a task it only says so, of a container not even that.
      // The end of what was printed is lost once in hundreds of runs on a crowded machine, with containerd as with any: between the shim and ctr.
      if (!asked.word.startsWith(output))
        throw new Failure('Unknown', `ctr run of ${id} printed ${JSON.stringify(output)}`);
      const { containers } = await turn.containers.list({ filters: [`id==${id}`] });
      if (containers.length > 0) throw new Failure('Unknown', `ctr run --rm of ${id} left its container`);
    },
  );
}
