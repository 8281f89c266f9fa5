/** A record so large that the database's log has to be emptied because of it. */
import type { Turn } from '../turn.ts';

export async function heavy(turn: Turn): Promise<void> {
  const id = turn.unique('s');
  const object = turn.object('container', id);
  const spec = { typeUrl: 'faults.Heavy', value: Buffer.alloc(5 << 20, 0x20) };
  await turn.ask('containers.create', [{ object, state: { labels: { faults: id } } }], () =>
    turn.containers.create({
      container: { id, labels: { faults: id }, runtime: { name: 'io.containerd.runc.v2', options: undefined }, spec },
    }),
  );
  await turn.ask('containers.delete', [{ object, state: null }], () => turn.containers.delete({ id }));
}
