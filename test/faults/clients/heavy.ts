/** Records so large that the database's log has to be emptied because of them. */
import type { Turn } from '../turn.ts';

/** The log is emptied when it has grown by 4 MiB: by two of these. */
const specBytes = 2 << 20;

export async function heavy(turn: Turn): Promise<void> {
  for (let count = 0; count < 3; count++) {
    const id = turn.unique('s');
    const object = turn.object('container', id);
    const spec = { typeUrl: 'faults.Heavy', value: Buffer.alloc(specBytes, 0x20) };
    const container = {
      id,
      labels: { faults: id },
      runtime: { name: 'io.containerd.runc.v2', options: undefined },
      spec,
    };
    await turn.ask('containers.create', [{ object, state: { labels: { faults: id } } }], () =>
      turn.containers.create({ container }),
    );
    await turn.ask('containers.delete', [{ object, state: null }], () => turn.containers.delete({ id }));
  }
}
