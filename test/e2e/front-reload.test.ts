/** The front itself is replaced while it is used: connections stay with the generation that accepted them, and end with what runs on them. */
import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useDaemon } from '../helpers/daemon.ts';

const front = 'troupe.front.v1.front';

test('B20 the front is reloaded under calls, an upload and a subscription: none fails, none breaks, and ctr always connects', async (t) => {
  t.timeout(180_000);
  const daemon = await useDaemon(t);
  const client = new GrpcClient(daemon.address, { namespace: 'front' });
  t.teardown(() => client.close());
  const kernel = typedClient(client, KernelDefinition);
  const events = typedClient(client, EventsDefinition);

  const heard: string[] = [];
  const abort = new AbortController();
  const listening = (async () => {
    for await (const { topic } of events.subscribe({ filters: ['namespace==front'] }, { signal: abort.signal }))
      heard.push(topic);
  })();
  listening.catch(() => {});
  const publish = (topic: string) =>
    events.publish({ topic, event: { typeUrl: 'test.Number', value: new Uint8Array() } });
  while (heard.length === 0) {
    await publish('/begin');
    await Promise.race([sleep(20), listening]);
  }

  const parts = Array.from({ length: 6 }, () => randomBytes(100_000));
  const expected = `sha256:${createHash('sha256').update(Buffer.concat(parts)).digest('hex')}`;
  let next = Promise.withResolvers<void>();
  const upload = (async () => {
    async function* requests() {
      let offset = 0n;
      for (const data of parts) {
        yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref: 'r', offset, data });
        offset += BigInt(data.length);
        await next.promise;
      }
      yield WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, offset, total: offset, expected });
    }
    let digest = '';
    for await (const reply of typedClient(client, ContentDefinition).write(requests())) digest = reply.digest;
    return digest;
  })();

  let over = false;
  let calls = 0;
  const failed: string[] = [];
  const lanes = Array.from({ length: 8 }, async () => {
    while (!over) {
      await typedClient(client, ImagesDefinition)
        .list({ filters: [] })
        .catch((error: Error) => failed.push(error.message));
      calls += 1;
    }
  });
  const codes: number[] = [];
  const connecting = (async () => {
    while (!over) codes.push((await daemon.ctr(['images', 'ls'])).code ?? -1);
  })();

  for (let reload = 2; reload < 6; reload++) {
    const { outcome, reason, generation } = await kernel.reload({ id: front, force: true });
    t.is(outcome, 'reloaded', reason);
    t.is(generation, reload);
    const before = calls;
    while (calls < before + 50) await sleep(10);
    await publish(`/reload/r${reload}`);
    next.resolve();
    next = Promise.withResolvers();
  }
  over = true;
  next.resolve();
  await Promise.all([...lanes, connecting]);
  next = { ...next, promise: Promise.resolve() };
  t.deepEqual(failed, []);
  t.true(codes.length > 1, 'new connections were made all the while');
  t.deepEqual(
    codes.filter((code) => code !== 0),
    [],
  );
  t.is(await upload, expected);
  while (!heard.includes('/reload/r5')) await Promise.race([sleep(20), listening]);
  t.deepEqual(
    heard.filter((topic) => topic.startsWith('/reload')),
    ['/reload/r2', '/reload/r3', '/reload/r4', '/reload/r5'],
  );
  abort.abort();
});
