/** Takes content that one namespace has into another by naming its digest: not a byte is sent. */
import { WriteAction, type WriteContentRequest } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { sha256 } from '../../helpers/image.ts';
import { bytesOf } from '../random.ts';
import { rooted, type Turn } from '../turn.ts';
import { write } from './contents.ts';

export async function sharers(turn: Turn): Promise<void> {
  const size = turn.random.between(16, 10_000);
  const ref = `${turn.unique('blob')}~${size}`;
  const digest = await write(turn, ref, size);
  const namespace = `${turn.ground.ns}-b`;
  const request = { ref, total: BigInt(size), expected: sha256(bytesOf(ref, size)), offset: BigInt(size) };
  async function* requests(): AsyncGenerator<Partial<WriteContentRequest>> {
    yield { ...request, action: WriteAction.STAT };
    yield { ...request, action: WriteAction.COMMIT, labels: rooted };
  }
  const taken = `content/${namespace}/${digest}`;
  await turn.ask('content.write, shared', [{ object: taken, state: { size } }], async () => {
    for await (const _ of turn.content.write(requests(), { namespace }));
  });
  // The first namespace's goes before, so that the last one takes the file.
  await turn.ask('content.delete', [{ object: turn.object('content', digest), state: null }], () =>
    turn.content.delete({ digest }),
  );
  await turn.ask('content.delete', [{ object: taken, state: null }], () =>
    turn.content.delete({ digest }, { namespace }),
  );
}
