/** The line in front of a slot: calls begin in the order in which they were made, whatever order messages of different ports come in. */
import { MessageChannel } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { CalleeLink, type IncomingCall } from './callee.ts';
import { Deadlines } from './deadlines.ts';
import type { CallMeta, Port } from './frames.ts';
import { dispatchPage } from './link.ts';
import { Router } from './router.ts';
import type { Provider } from './routes.ts';
import { Scheduler } from './scheduler.ts';

const meta: CallMeta = { from: 'test', namespace: 'ns', lease: '', deadline: 0, trace: '', cursor: '' };
const provider: Provider = { slot: 'a', name: '', public: true, methods: {}, shapes: [] };

/** A router, and generations of what it calls, each of which keeps the calls that it is handed until the test says more. */
function setUp(t: ExecutionContext, returningMs = 60_000) {
  const asked: string[] = [];
  const router = new Router({ introduce: (slot) => asked.push(slot) }, new Scheduler(), new Deadlines(), returningMs);
  const ended: string[] = [];
  const call = (method: string) =>
    router.call(
      provider,
      method,
      { meta, payload: new Uint8Array(), complete: true, single: true },
      {
        message: () => {},
        end: () => ended.push(method),
        fail: ({ code }) => ended.push(`${method} ${code}`),
        writable: () => {},
      },
    );
  const generation = () => {
    const { port1, port2 } = new MessageChannel();
    t.teardown(() => port1.close());
    const page = dispatchPage();
    const calls: IncomingCall[] = [];
    const link = new CalleeLink('caller', port2 as unknown as Port, page, new Scheduler(), (each) => calls.push(each));
    return {
      link,
      calls,
      methods: () => calls.map(({ method }) => method),
      serve: () => router.relink('a', { port: port1 as unknown as Port, page }),
    };
  };
  return { router, asked, ended, call, generation };
}

/** Resolves when it holds; ports deliver within some turns of the loop. */
async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition() && turns < 10_000; turns++) await new Promise((resolve) => setImmediate(resolve));
}

/** Long enough for what would be wrong to happen. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('B29 a new generation that is heard of before the refusals of the old one is called in order', async (t) => {
  const { call, generation, router, ended } = setUp(t);
  const [old, next] = [generation(), generation()];
  old.serve();
  for (const method of ['1', '2']) call(method);
  await until(() => old.calls.length === 2);
  next.serve();
  for (const method of ['3', '4']) call(method);
  await turns();
  t.deepEqual(next.methods(), []);
  for (const each of old.calls) each.refuse();
  call('5');
  await until(() => next.calls.length === 5);
  t.deepEqual(next.methods(), ['1', '2', '3', '4', '5']);
  for (const each of next.calls) {
    each.dispatch();
    each.reply(new Uint8Array());
  }
  await until(() => ended.length === 5);
  t.deepEqual(ended, ['1', '2', '3', '4', '5']);
  t.is(router.pending, 0);
});

test('B29 one that is refused later than others, and than newer ones were made, keeps its place', async (t) => {
  const { call, generation, asked } = setUp(t);
  const [old, next] = [generation(), generation()];
  old.serve();
  for (const method of ['1', '2', '3']) call(method);
  await until(() => old.calls.length === 3);
  old.calls[1]!.refuse();
  await until(() => asked.length === 1);
  call('4');
  next.serve();
  old.calls[0]!.refuse();
  await turns();
  t.deepEqual(next.methods(), []);
  old.calls[2]!.refuse();
  await until(() => next.calls.length === 4);
  t.deepEqual(next.methods(), ['1', '2', '3', '4']);
});

for (const [how, settle, returningMs] of [
  ['was begun after all', (each: IncomingCall) => each.dispatch(), 60_000],
  ['is answered', (each: IncomingCall) => each.reply(new Uint8Array()), 60_000],
  ['is never heard of again', () => {}, 50],
] as const) {
  test(`a call on the old link that ${how} holds the others up no longer`, async (t) => {
    const { call, generation } = setUp(t, returningMs);
    const [old, next] = [generation(), generation()];
    old.serve();
    call('old');
    await until(() => old.calls.length === 1);
    next.serve();
    call('new');
    settle(old.calls[0]!);
    const began = performance.now();
    while (next.calls.length === 0 && performance.now() - began < 10_000)
      await new Promise((resolve) => setTimeout(resolve, 1));
    t.deepEqual(next.methods(), ['new']);
  });
}

test('a call on the old link that is cancelled, and one whose generation dies, hold nobody up', async (t) => {
  const { call, generation } = setUp(t);
  const [old, next] = [generation(), generation()];
  old.serve();
  const cancelled = call('cancelled');
  call('dying');
  await until(() => old.calls.length === 2);
  next.serve();
  call('new');
  cancelled.cancel();
  old.link.close();
  await until(() => next.calls.length === 2);
  t.deepEqual(next.methods(), ['dying', 'new']);
});
