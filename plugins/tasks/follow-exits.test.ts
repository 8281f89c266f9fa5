import test from 'ava';
import { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { ExitDelivery } from './exit-delivery.ts';
import { followExits } from './follow-exits.ts';
import { makeRig } from './rig.ts';

test('what is no exit, under the topic of exits, costs none of those that follow', async (t) => {
  const rig = await makeRig(t);
  const exits = new ExitDelivery(rig.host);
  const stop = new AbortController();
  const exit = TaskExit.fromPartial({ containerId: 'web', id: 'web', pid: 7, exitStatus: 3 });
  const value = TaskExit.encode(exit).finish();
  const stray = TaskExit.encode({ ...exit, pid: 8 }).finish();
  let subscriptions = 0;
  async function* subscribe() {
    if (++subscriptions > 1) return stop.abort();
    yield { namespace: 'ns', event: undefined };
    yield { namespace: 'ns', event: { typeUrl: TaskExit.$type, value: Uint8Array.of(0x0a, 200, 1) } };
    yield { namespace: 'ns', event: { typeUrl: 'containerd.events.TaskOOM', value: stray } };
    yield { namespace: 'ns', event: { typeUrl: '', value: new Uint8Array() } };
    yield { namespace: 'ns', event: { typeUrl: `types.containerd.io/${TaskExit.$type}`, value } };
    stop.abort();
  }
  const ctx = { log: rig.host.log, call: () => ({ subscribe }) };
  await followExits(ctx as unknown as Parameters<typeof followExits>[0], exits, stop.signal);
  t.is(subscriptions, 1);
  t.deepEqual(
    exits.ledger.export().map(({ event }) => event.pid),
    [7],
  );
});
