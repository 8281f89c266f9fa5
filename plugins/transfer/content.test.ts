/** A blob that the store has of another namespace may be collected there before this one's record of it is made. */
import test from 'ava';
import { type Client, Failure } from 'troupe/plugin';
import {
  type ContentDefinition,
  WriteAction,
  type WriteContentRequest,
  WriteContentResponse,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import type { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { digestOf } from '../lib/digest/digest.ts';
import { Content } from './content.ts';

const bytes = Buffer.from('shared');
const blob = { mediaType: '', digest: digestOf(bytes), size: bytes.length };
const gone = new Failure('NotFound', `content digest ${blob.digest}: not found`);

/** A store that has all of it for so many writes, each time until it is to be committed. */
function storeThatLoses(times: number) {
  let attempts = 0;
  const content = {
    async *write(requests: AsyncIterable<WriteContentRequest>) {
      attempts += 1;
      const has = attempts <= times;
      let offset = has ? blob.size : 0;
      for await (const { action, data } of requests) {
        if (action === WriteAction.COMMIT && has) throw gone;
        offset += data.length;
        yield WriteContentResponse.fromPartial({ action, offset: BigInt(offset) });
      }
    },
  };
  const leases = { addResource: async () => ({}) };
  const clients = {
    content: content as unknown as Client<typeof ContentDefinition>,
    leases: leases as unknown as Client<typeof LeasesDefinition>,
  };
  const store = new Content(clients, { namespace: 'n', lease: 'l' });
  const source = async function* () {
    yield bytes;
  };
  const options = { labels: () => ({}), source, onProgress: () => {}, once: true };
  return { attempts: () => attempts, write: () => store.write(blob, options, new AbortController().signal) };
}

test('it is written after all, from a source that can be read once', async (t) => {
  const { attempts, write } = storeThatLoses(2);
  t.is(await write(), 'written');
  t.is(attempts(), 3);
});

test('and not for ever', async (t) => {
  const { attempts, write } = storeThatLoses(100);
  await t.throwsAsync(write, { message: gone.message });
  t.is(attempts(), 3);
});
