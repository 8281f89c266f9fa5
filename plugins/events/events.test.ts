import { EventsDefinition as TtrpcEventsDefinition } from 'troupe/proto/containerd/services/events/ttrpc/v1/events.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { TaskExit, TaskOOM, TaskStart } from 'troupe/proto/containerd/events/task.ts';
import { Empty } from 'troupe/proto/google/protobuf/empty.ts';
import test, { type ExecutionContext } from 'ava';
import { Failure, recordEvent } from 'troupe/plugin';
import { type InProcess, inProcess } from '../../test/helpers/in-process.ts';
import { eventsSuite } from '../../test/suites/events.ts';
import { Exchange } from './exchange.ts';
import events from './index.ts';
import { Missed } from './missed.ts';

const id = 'io.containerd.event.v1.exchange';

async function setUp(t: ExecutionContext) {
  const daemon = inProcess(t);
  const plugin = await daemon.add(events, { id, prefix: 'events' });
  return { daemon, plugin, events: daemon.client(EventsDefinition) };
}

eventsSuite('in process', async (t) => ({ events: (await setUp(t)).events }));

const message = (text: string) => ({ typeUrl: 'test.Unknown', value: Buffer.from(text) });
const event = (topic: string, value = 'x') => ({
  timestamp: { seconds: 1n, nanos: 0 },
  namespace: 'ns',
  topic,
  event: message(value),
});
const exitOf = (containerId: string, pid: number) => ({
  ...event('/tasks/exit'),
  event: {
    typeUrl: TaskExit.$type,
    value: TaskExit.encode(TaskExit.fromPartial({ containerId, id: containerId, pid })).finish(),
  },
});
const startOf = (containerId: string, pid: number) => ({
  ...event('/tasks/start'),
  event: { typeUrl: TaskStart.$type, value: TaskStart.encode({ containerId, pid }).finish() },
});
const oomOf = (containerId: string) => ({
  ...event('/tasks/oom'),
  event: { typeUrl: TaskOOM.$type, value: TaskOOM.encode({ containerId }).finish() },
});
const all = () => true;

async function topics(daemon: InProcess, count: number, abort: AbortSignal): Promise<string[]> {
  const heard: string[] = [];
  for await (const { topic } of daemon.client(EventsDefinition).subscribe({}, { signal: abort })) {
    if (heard.push(topic) === count) break;
  }
  return heard;
}

const commitEvent = (daemon: InProcess, topic: string) =>
  daemon.records.as('events').commit({ statements: [], events: [recordEvent('ns', topic, Empty, {})] });

test('events of records come before events that they caused, and leave the outbox', async (t) => {
  const { daemon, plugin, events: client } = await setUp(t);
  const abort = new AbortController();
  const heard = topics(daemon, 6, abort.signal);
  for (const n of [1, 2, 3]) {
    await commitEvent(daemon, `/record/${n}`);
    await client.publish({ topic: `/plain/${n}`, event: message('x') }, { namespace: 'ns' });
  }
  t.deepEqual(await heard, ['/record/1', '/plain/1', '/record/2', '/plain/2', '/record/3', '/plain/3']);
  await plugin.stop();
  t.deepEqual(daemon.records.rows('SELECT seq FROM records_outbox'), []);
});

test('a commit alone wakes the exchange; its time is the one it was recorded with', async (t) => {
  const { daemon, events: client } = await setUp(t);
  const stream = client.subscribe({})[Symbol.asyncIterator]();
  const next = stream.next();
  await commitEvent(daemon, '/record/alone');
  const { topic, timestamp } = (await next).value!;
  t.is(topic, '/record/alone');
  const [row] = daemon.records.rows<{ at: string }>('SELECT CAST(at AS TEXT) AS at FROM records_outbox');
  t.is(`${timestamp!.seconds * 1_000_000_000n + BigInt(timestamp!.nanos)}`, row!.at);
  await stream.return?.(undefined);
});

test('what a crash left in the outbox is published by the next start', async (t) => {
  const daemon = inProcess(t);
  for (let n = 0; n < 300; n++) await commitEvent(daemon, `/left/${n}`);
  const plugin = await daemon.add(events, { id, prefix: 'events' });
  await plugin.stop();
  t.deepEqual(daemon.records.rows('SELECT seq FROM records_outbox'), []);
});

test('a reload hands on what was published, and what comes of exits', async (t) => {
  const { daemon, plugin, events: client } = await setUp(t);
  const exit = exitOf('a', 1);
  await client.forward({ envelope: startOf('a', 1) });
  await client.forward({ envelope: exit });
  await commitEvent(daemon, '/record/1');
  await client.publish({ topic: '/plain/1', event: message('x') }, { namespace: 'ns' });
  await plugin.reload();
  const abort = new AbortController();
  const heard = topics(daemon, 2, abort.signal);
  await client.forward({ envelope: exit });
  await commitEvent(daemon, '/record/2');
  await client.publish({ topic: '/plain/2', event: message('x') }, { namespace: 'ns' });
  t.deepEqual(await heard, ['/record/2', '/plain/2'], 'neither the exit again nor the record of before');
});

test('a reload that fails leaves open streams with the generation they are on', async (t) => {
  const { plugin, events: client } = await setUp(t);
  const stream = client.subscribe({})[Symbol.asyncIterator]();
  const next = stream.next();
  const state = structuredClone(await plugin.instance.suspend?.());
  await plugin.instance.activate?.(state);
  await client.publish({ topic: '/after', event: message('x') }, { namespace: 'ns' });
  t.is((await next).value?.topic, '/after');
  await stream.return?.(undefined);
});

test('shims forward over ttrpc', async (t) => {
  const { daemon } = await setUp(t);
  const abort = new AbortController();
  const heard = topics(daemon, 1, abort.signal);
  await daemon.client(TtrpcEventsDefinition).forward({ envelope: event('/tasks/start') });
  t.deepEqual(await heard, ['/tasks/start']);
});

test('a client may say an exit twice, a shim may not', async (t) => {
  const { daemon, events: client } = await setUp(t);
  const abort = new AbortController();
  const heard = topics(daemon, 3, abort.signal);
  const { event: exit } = exitOf('a', 1);
  for (let i = 0; i < 2; i++) await client.publish({ topic: '/tasks/exit', event: exit }, { namespace: 'ns' });
  for (let i = 0; i < 2; i++) await client.forward({ envelope: { ...event('/tasks/exit'), event: exit } });
  await client.publish({ topic: '/end', event: message('x') }, { namespace: 'ns' });
  t.deepEqual(await heard, ['/tasks/exit', '/tasks/exit', '/tasks/exit']);
});

test('who subscribes soon after a start is told first what ended of that which the daemon before had started, through a reload too', async (t) => {
  const { daemon, plugin, events: client } = await setUp(t);
  const forward = (envelope: { topic: string; event: { typeUrl: string; value: Uint8Array } }) =>
    client.forward({ envelope });
  await forward(startOf('new', 2));
  for (const each of [oomOf('old'), exitOf('old', 1), oomOf('new'), exitOf('new', 2), exitOf('old', 1)])
    await forward(each);
  await client.publish({ topic: '/tasks/exit', event: exitOf('told by a client', 3).event }, { namespace: 'ns' });
  await plugin.reload();
  await forward(startOf('new', 3));
  await forward(exitOf('new', 3));
  await forward(exitOf('other', 4));
  const heard: string[] = [];
  const abort = new AbortController();
  const filters = ['topic~="/tasks/.*"'];
  for await (const { event: message } of daemon
    .client(EventsDefinition)
    .subscribe({ filters }, { signal: abort.signal })) {
    const name = message!.typeUrl.split('.').at(-1)!;
    heard.push(`${name} ${TaskExit.decode(message!.value).containerId}`);
    if (heard.length === 3) await forward(startOf('end', 5));
    if (heard.length === 4) break;
  }
  t.deepEqual(heard, ['TaskOOM old', 'TaskExit old', 'TaskExit other', 'TaskStart end']);
});

test('what was missed is news for some seconds only, and bounded', (t) => {
  let now = 0;
  const exchange = new Exchange();
  const missed = new Missed(undefined, () => now);
  for (let pid = 1; pid <= 6000; pid++) missed.note(exchange.publish(exitOf(`c${pid}`, pid)));
  missed.note(exchange.publish({ ...exitOf('', 1), event: message('no exit at all: \xff') }));
  t.is(missed.list().length, 5000);
  t.is(missed.list().at(-1)?.sequence, 6000);
  now = 9_000;
  const next = new Missed(structuredClone(missed.state()), () => now);
  t.is(next.list().length, 5000);
  now = 10_000;
  t.deepEqual(next.list(), []);
  t.deepEqual(next.state(), { left: 0, kept: [], begun: [] });
  next.note(exchange.publish(exitOf('late', 1)));
  t.deepEqual(next.list(), []);
});

test('a subscription goes on from its cursor, with neither gap nor duplicate', async (t) => {
  const first = new Exchange();
  first.publish(event('/1'));
  const { signal } = new AbortController();
  let cursor = '';
  first.subscribe(all, '', (at) => {
    cursor = at;
  });
  first.publish(event('/2'));
  const second = new Exchange(structuredClone(first.state()));
  second.publish(event('/3'));
  const subscription = second.subscribe(all, cursor);
  second.publish(event('/4'));
  for (const topic of ['/2', '/3', '/4']) t.is((await subscription.next(signal)).event.topic, topic);
  subscription.close();
  t.is(second.subscribers, 0);
});

test('B14 a subscription for which nothing came in a long time moves on with the others, and only what is waited for moves', async (t) => {
  const first = new Exchange(undefined, { events: 5, bytes: 1 << 20 });
  let cursor = first.cursor();
  first.subscribe(
    () => false,
    cursor,
    (at) => {
      cursor = at;
    },
  );
  for (let each = 0; each < 20; each++) first.publish(event('/other'));
  const state = first.state();
  t.is(state.recent.length, 0);
  const second = new Exchange(structuredClone(state), { events: 5, bytes: 1 << 20 });
  const subscription = second.subscribe(all, cursor);
  second.publish(event('/next'));
  t.is((await subscription.next(new AbortController().signal)).event.topic, '/next');
});

test('a cursor of an exchange that died hears all of the new one', async (t) => {
  const cursor = new Exchange().cursor();
  const next = new Exchange();
  next.publish(event('/1'));
  t.is((await next.subscribe(all, cursor).next(new AbortController().signal)).event.topic, '/1');
});

test('a cursor that is too old is refused', (t) => {
  const exchange = new Exchange(undefined, { events: 2, bytes: 1 << 20 });
  const cursor = exchange.cursor();
  for (const topic of ['/1', '/2']) exchange.publish(event(topic));
  exchange.subscribe(all, cursor).close();
  exchange.publish(event('/3'));
  const error = t.throws(() => exchange.subscribe(all, cursor), {
    message: 'slow consumer, last sequence 0: resource exhausted',
  });
  t.true(Failure.is(error, 'ResourceExhausted'));
});

test('queues are bounded by events and by bytes, and an event alone passes', async (t) => {
  const exchange = new Exchange(undefined, { events: 3, bytes: 1000 });
  const { signal } = new AbortController();
  const big = exchange.subscribe(all);
  exchange.publish(event('/big', 'x'.repeat(5000)));
  t.is((await big.next(signal)).sequence, 1);
  exchange.publish(event('/small'));
  exchange.publish(event('/big', 'x'.repeat(5000)));
  await t.throwsAsync(big.next(signal), { message: 'slow consumer, last sequence 1: resource exhausted' });
  t.is(exchange.subscribers, 0, 'it costs nothing any more');

  const many = exchange.subscribe(all);
  for (let i = 0; i < 3; i++) exchange.publish(event('/n'));
  t.is((await many.next(signal)).event.topic, '/n');
  exchange.publish(event('/n'));
  exchange.publish(event('/n'));
  await t.throwsAsync(many.next(signal), { message: 'slow consumer, last sequence 4: resource exhausted' });
});
