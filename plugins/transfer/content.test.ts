/** A blob that the store has of another namespace may be collected there after it was offered, and before it is this one's. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  ContentDefinition,
  WriteAction,
  type WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { useSubject } from '../../test/suites/in-process-subject.ts';
import contentPlugin from '../content/index.ts';
import { digestOf } from '../lib/digest/digest.ts';
import { Content } from './content.ts';

const id = 'io.containerd.content.v1.content';
const bytes = Buffer.from('shared');
const blob = { mediaType: '', digest: digestOf(bytes), size: bytes.length };
const signal = new AbortController().signal;

/** A real store, where the other namespace has it when it is asked for, and loses it when this one's is about to be committed: so many times. */
async function useLosing(t: ExecutionContext, times: number) {
  const subject = await useSubject(t, ContentDefinition, contentPlugin, {
    id,
    noun: 'content',
    config: { content_sharing_policy: 'shared' },
  });
  const { daemon, client, namespace, otherNamespace } = subject;
  const leases = daemon.client(LeasesDefinition);
  const sources: number[] = [];
  const writer = async (of: string, through = client) => {
    await leases.create({ id: 'kept', labels: {} }, { namespace: of });
    return new Content({ content: through, leases }, { namespace: of, lease: 'kept' });
  };
  const write = (content: Content) =>
    content.write(
      blob,
      {
        labels: () => ({}),
        async *source(offset) {
          sources.push(offset);
          yield [bytes.subarray(offset)];
        },
        onProgress: () => {},
        once: true,
      },
      signal,
    );
  const others = await writer(otherNamespace);
  await write(others);
  const path = join(daemon.root, id, 'blobs', ...blob.digest.split(':'));
  const lose = async () => {
    await client.delete({ digest: blob.digest }, { namespace: otherNamespace });
    while (existsSync(path)) await new Promise(setImmediate);
  };
  let lost = 0;
  async function* losing(requests: AsyncIterable<WriteContentRequest>) {
    for await (const request of requests) {
      if (request.action === WriteAction.STAT && lost > 0 && lost < times) await write(others);
      if (request.action === WriteAction.COMMIT && lost < times) {
        lost += 1;
        await lose();
      }
      yield request;
    }
  }
  const through = { ...client, write: (requests, options) => client.write(losing(requests), options) } as typeof client;
  sources.length = 0;
  const own = await writer(namespace, through);
  return { client, namespace, sources, write: () => write(own), lost: () => lost };
}

test('what was offered and is gone is written after all, from a source that can be read once', async (t) => {
  const { client, namespace, sources, write, lost } = await useLosing(t, 1);
  t.is(await write(), 'written');
  t.is(lost(), 1);
  t.deepEqual(sources, [0]);
  t.is((await client.info({ digest: blob.digest }, { namespace })).info?.size, BigInt(blob.size));
});

test('and not for ever', async (t) => {
  const { write, lost } = await useLosing(t, 10);
  await t.throwsAsync(write, { message: `content digest ${blob.digest}: not found` });
  t.is(lost(), 3);
});
