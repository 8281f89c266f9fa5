/** Reloads of the exchange, of snapshots and of a snapshotter while they are used: no call fails, and a subscription misses nothing and hears nothing twice. */
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { eventually } from '../helpers/eventually.ts';
import { useDaemon } from '../helpers/daemon.ts';

const exchange = 'io.containerd.event.v1.exchange';
const reloaded = [
  exchange,
  'io.containerd.service.v1.snapshots-service',
  exchange,
  'io.containerd.snapshotter.v1.native',
  exchange,
];

test('B14 a subscription lives through reloads', async (t) => {
  t.timeout(120_000);
  const daemon = await useDaemon(t);
  const client = new GrpcClient(daemon.address, { namespace: 'reload' });
  t.teardown(() => client.close());
  const events = typedClient(client, EventsDefinition);
  const snapshots = typedClient(client, SnapshotsDefinition);
  const kernel = typedClient(client, KernelDefinition);

  const heard: string[] = [];
  const abort = new AbortController();
  const began = Promise.withResolvers<void>();
  const reading = (async () => {
    for await (const { topic, event } of events.subscribe(
      { filters: ['namespace==reload'] },
      { signal: abort.signal },
    )) {
      began.resolve();
      if (topic === '/test/number') heard.push(`${Buffer.from(event!.value)}`);
      if (topic === '/snapshot/prepare') heard.push('snapshot');
    }
  })();
  reading.catch(() => {});
  const publish = (topic: string, text: string): Promise<unknown> =>
    events.publish({ topic, event: { typeUrl: 'test.Number', value: Buffer.from(text) } });
  for (let open = false; !open; open = await Promise.race([began.promise.then(() => true), sleep(20, false)])) {
    await publish('/test/begin', '');
  }

  let done = false;
  const numbers: string[] = [];
  const publishing = (async () => {
    while (!done) {
      const text = `${numbers.length}`;
      await publish('/test/number', text);
      numbers.push(text);
    }
  })();
  let prepared = 0;
  const preparing = (async () => {
    while (!done) {
      await snapshots.prepare({
        snapshotter: 'native',
        key: `${prepared}`,
        parent: '',
        labels: { 'containerd.io/gc.root': 'x' },
      });
      prepared += 1;
    }
  })();
  for (const id of reloaded) {
    const before = [numbers.length, prepared] as const;
    const { outcome, reason } = await kernel.reload({ id, force: true });
    t.is(outcome, 'reloaded', reason);
    // Under each generation there is something to be lost.
    await eventually(t, `both go on after ${id}`, () => numbers.length > before[0] + 5 && prepared > before[1] + 1);
  }
  done = true;
  await Promise.all([publishing, preparing]);
  const end = `${numbers.length}`;
  await publish('/test/number', end);
  while (!heard.includes(end)) await Promise.race([sleep(20), reading]);
  abort.abort();
  t.deepEqual(
    heard.filter((each) => each !== 'snapshot'),
    [...numbers, end],
  );
  t.is(heard.filter((each) => each === 'snapshot').length, prepared);
});
