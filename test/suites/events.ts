/**
 * What the Events service promises, seen only through the API. The factory says how to reach it: in process, over the bus, over a socket.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Failure, type FailureCode } from 'troupe/plugin';
import { ContainerCreate } from 'troupe/proto/containerd/events/container.ts';
import { TaskExit, TaskStart } from 'troupe/proto/containerd/events/task.ts';
import { ImageCreate } from 'troupe/proto/containerd/services/images/v1/events.ts';
import type { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import type { Envelope } from 'troupe/proto/containerd/types/envelope.ts';
import type { PartialClient } from '../helpers/in-process.ts';

export interface EventsUnderTest {
  /** Calls carry no namespace; the suite says its own. */
  readonly events: PartialClient<EventsDefinition>;
}

export function eventsSuite(name: string, factory: (t: ExecutionContext) => Promise<EventsUnderTest>): void {
  const check = (title: string, body: (t: ExecutionContext, s: Suite) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => {
      const suite = new Suite(t, (await factory(t)).events);
      t.teardown(() => suite.close());
      await body(t, suite);
    });
  };

  check('what is published arrives, complete and in order, from every namespace', async (t, s) => {
    const heard = await s.subscribe();
    const before = BigInt(Date.now() - 1) * 1_000_000n;
    for (let i = 0; i < 20; i++) await s.publish(`ns${i % 3}`, '/test/number', 'test.Unknown', Buffer.from(`${i}`));
    for (let i = 0; i < 20; i++) {
      const { namespace, topic, event, timestamp } = await heard.next();
      t.deepEqual(
        [namespace, topic, event?.typeUrl, Buffer.from(event!.value).toString()],
        [`ns${i % 3}`, '/test/number', 'test.Unknown', `${i}`],
      );
      const at = timestamp!.seconds * 1_000_000_000n + BigInt(timestamp!.nanos);
      t.true(at >= before && at <= BigInt(Date.now() + 1) * 1_000_000n, `${at}`);
    }
  });

  check('times have nanoseconds', async (t, s) => {
    const heard = await s.subscribe();
    for (let i = 0; i < 10; i++) await s.publish('ns', '/test/time');
    const nanos: number[] = [];
    while (nanos.length < 10) nanos.push((await heard.next()).timestamp!.nanos);
    t.true(
      nanos.some((each) => each % 1_000_000 !== 0),
      `${nanos}`,
    );
  });

  check('what is forwarded keeps its time and namespace', async (t, s) => {
    const heard = await s.subscribe();
    const timestamp = { seconds: 1_700_000_000n, nanos: 123_456_789 };
    const event = { typeUrl: 'test.Unknown', value: Buffer.from('x') };
    await s.events.forward(
      { envelope: { timestamp, namespace: s.ns('theirs'), topic: '/a/b', event } },
      { namespace: s.ns('mine') },
    );
    const envelope = await heard.next();
    t.deepEqual(envelope.timestamp, timestamp);
    t.is(envelope.namespace, 'theirs');
    t.is(envelope.topic, '/a/b');
    t.is(envelope.event?.typeUrl, 'test.Unknown');
    t.deepEqual(Buffer.from(envelope.event!.value), event.value);
  });

  check('filters choose by namespace, topic and fields of the message', async (t, s) => {
    const all = await s.subscribe();
    const subscriptions = {
      namespace: await s.subscribe(`namespace==${s.ns('one')}`),
      topic: await s.subscribe('topic~=|^/tasks/|'),
      either: await s.subscribe('topic=="/images/create"', 'topic=="/tasks/start"'),
      both: await s.subscribe(`namespace==${s.ns('two')},topic~=|^/tasks/|`),
      container: await s.subscribe('event.container_id==web'),
      name: await s.subscribe('event.name==docker.io/library/busybox:latest'),
      label: await s.subscribe('event.labels."io.example/x"==y'),
      nested: await s.subscribe('event.runtime.name==io.containerd.runc.v2'),
      unknown: await s.subscribe('bogus==1'),
    };
    await s.send('one', '/tasks/start', TaskStart, { containerId: 'web', pid: 1 });
    await s.send('two', '/tasks/start', TaskStart, { containerId: 'db', pid: 2 });
    await s.send('one', '/images/create', ImageCreate, {
      name: 'docker.io/library/busybox:latest',
      labels: { 'io.example/x': 'y' },
    });
    await s.send('one', '/containers/create', ContainerCreate, {
      id: 'web',
      runtime: { name: 'io.containerd.runc.v2' },
    });
    await s.publish('end', '/end/end');
    const heard: Record<string, string[]> = {};
    for (let i = 0; i < 5; i++) await all.next();
    for (const [key, subscription] of Object.entries(subscriptions)) {
      await s.settle(subscription);
      heard[key] = subscription.waiting().map(({ namespace, topic }) => namespace + topic);
    }
    t.deepEqual(heard, {
      namespace: ['one/tasks/start', 'one/images/create', 'one/containers/create'],
      topic: ['one/tasks/start', 'two/tasks/start'],
      either: ['one/tasks/start', 'two/tasks/start', 'one/images/create'],
      both: ['two/tasks/start'],
      container: ['one/tasks/start'],
      name: ['one/images/create'],
      label: ['one/images/create'],
      nested: ['one/containers/create'],
      unknown: [],
    });
    const error = await t.throwsAsync(
      s.events
        .subscribe({ filters: ['((('] })
        [Symbol.asyncIterator]()
        .next(),
    );
    t.regex(
      error?.message ?? '',
      /^subscription error: failed parsing subscription filters: filters: parse error: .*: invalid argument$/,
    );
  });

  check('bad topics, namespaces and envelopes', async (t, s) => {
    const heard = await s.subscribe();
    const pattern = '^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$';
    const topics: [string, string][] = [
      ['', 'must not be empty'],
      ['a', "must start with '/'"],
      ['/', 'must have at least one component'],
      ['/a//b', 'failed validation on component "": identifier must not be empty'],
      ['/a/', 'failed validation on component "": identifier must not be empty'],
      ['/a/b c', `failed validation on component "b c": identifier "b c" must match ${pattern}`],
    ];
    const event = { typeUrl: 'test.Unknown', value: Buffer.from('x') };
    const timestamp = { seconds: 1n, nanos: 0 };
    for (const [topic, problem] of topics) {
      const message = `envelope topic "${topic}": ${problem}: invalid argument`;
      await s.fails('InvalidArgument', message, s.publish('ns', topic));
      await s.fails(
        'InvalidArgument',
        message,
        s.events.forward({ envelope: { timestamp, namespace: 'ns', topic, event } }),
      );
    }
    await s.fails(
      'FailedPrecondition',
      'failed publishing event: namespace is required: failed precondition',
      s.publish('', '/a'),
    );
    await s.fails(
      'InvalidArgument',
      `failed publishing event: namespace validation: identifier "../x" must match ${pattern}: invalid argument`,
      s.events.publish({ topic: '/a', event }, { namespace: '../x' }),
    );
    await s.fails(
      'InvalidArgument',
      'event envelope has invalid namespace: identifier must not be empty: invalid argument',
      s.events.forward({ envelope: { timestamp, topic: '/a', event } }),
    );
    await s.fails(
      'InvalidArgument',
      'timestamp must be set on forwarded event: invalid argument',
      s.events.forward({ envelope: { namespace: 'ns', topic: '/a', event } }),
    );
    await s.fails('InvalidArgument', 'event envelope is required: invalid argument', s.events.forward({}));
    await s.fails(
      'InvalidArgument',
      'envelope topic "/a": event is required: invalid argument',
      s.events.publish({ topic: '/a' }, { namespace: 'ns' }),
    );
    await s.publish('ns', '/good');
    t.is((await heard.next()).topic, '/good', 'nothing of the above was heard');
  });

  check('an exit is told of once, until it is started anew', async (t, s) => {
    const heard = await s.subscribe('topic~=|^/tasks/|');
    const exit = { containerId: 'web', id: 'web', pid: 42, exitStatus: 3 };
    await s.send('ns', '/tasks/exit', TaskExit, exit);
    await s.send('ns', '/tasks/exit', TaskExit, { ...exit, exitStatus: 137 });
    await s.send('ns', '/tasks/exit', TaskExit, { ...exit, id: 'exec' });
    await s.send('other', '/tasks/exit', TaskExit, exit);
    await s.send('ns', '/tasks/start', TaskStart, { containerId: 'web', pid: 42 });
    await s.send('ns', '/tasks/exit', TaskExit, exit);
    await s.send('ns', '/tasks/done', TaskStart, {});
    const told: string[] = [];
    for (;;) {
      const { namespace, topic, event } = await heard.next();
      if (topic === '/tasks/done') break;
      told.push(topic === '/tasks/exit' ? `${namespace} ${TaskExit.decode(event!.value).id}` : topic);
    }
    t.deepEqual(told, ['ns web', 'ns exec', 'other web', '/tasks/start', 'ns web']);
  });

  check('a subscriber that does not read is cut, and others hear all', async (t, s) => {
    const slow = s.events.subscribe({ filters: [`namespace==${s.ns('ns')}`] })[Symbol.asyncIterator]();
    let began = false;
    const first = slow.next().then(() => {
      began = true;
    });
    const heard = await s.subscribe('topic=="/test/flood"');
    while (!began) {
      await s.publish('ns', '/first');
      await new Promise((resolve) => setImmediate(resolve));
    }
    await first;
    const value = Buffer.alloc(64 * 1024);
    for (let i = 0; i < 1000; i++) {
      await s.publish('ns', '/test/flood', 'test.Unknown', value);
      await heard.next();
    }
    const error = await t.throwsAsync(async () => {
      for (;;) await slow.next();
    });
    t.true(Failure.is(error, 'ResourceExhausted'), error?.message);
    t.regex(error?.message ?? '', /slow consumer, last sequence \d+/);
  });
}

type Events = PartialClient<EventsDefinition>;

interface EncodableOf<T> {
  readonly $type: string;
  fromPartial(partial: object): T;
  encode(message: T): { finish(): Uint8Array };
}

class Suite {
  readonly events: Events;
  readonly #t: ExecutionContext;
  readonly #subscriptions: Heard[] = [];
  /** In front of the names of this suite's namespaces: others may be publishing beside it. */
  readonly #token = `e${randomBytes(6).toString('hex')}`;
  #marks = 0;

  constructor(t: ExecutionContext, events: Events) {
    this.#t = t;
    this.events = events;
  }

  /** A namespace of this suite. */
  ns(name: string): string {
    return name === '' ? '' : `${this.#token}.${name}`;
  }

  /** Resolves when the subscription is known to hear what is published. */
  async subscribe(...filters: string[]): Promise<Heard> {
    const mark = `/suite/${this.#token}.${this.#marks++}`;
    const all = filters.length === 0 ? [] : [...filters, `topic==${JSON.stringify(mark)}`];
    const heard = new Heard(this.events, all, this.#token, mark);
    this.#subscriptions.push(heard);
    await this.settle(heard);
    return heard;
  }

  /** Resolves when all that was published before has come: a mark that is published now has. */
  async settle(heard: Heard): Promise<void> {
    const before = heard.marks;
    while (heard.marks === before) {
      await this.publish('suite', heard.mark);
      await Promise.race([heard.more(), sleep(20)]);
    }
  }

  async publish(
    namespace: string,
    topic: string,
    typeUrl = 'test.Unknown',
    value: Uint8Array = Buffer.from('x'),
  ): Promise<void> {
    await this.events.publish({ topic, event: { typeUrl, value } }, { namespace: this.ns(namespace) });
  }

  /** As a shim does. */
  async send<T>(namespace: string, topic: string, type: EncodableOf<T>, message: object): Promise<void> {
    const event = { typeUrl: type.$type, value: type.encode(type.fromPartial(message)).finish() };
    const timestamp = { seconds: 1n, nanos: 0 };
    await this.events.forward({ envelope: { timestamp, namespace: this.ns(namespace), topic, event } });
  }

  async fails(code: FailureCode, message: string, work: Promise<unknown>): Promise<void> {
    const error = await this.#t.throwsAsync(work, { message });
    this.#t.is(error instanceof Failure ? error.code : 'no failure', code, error?.message);
  }

  async close(): Promise<void> {
    for (const subscription of this.#subscriptions) await subscription.close();
  }
}

/** Reads a subscription as fast as it comes; hides the marks, what others publish, and the token in namespaces. */
class Heard {
  readonly mark: string;
  /** How often the mark has come. */
  marks = 0;
  readonly #abort = new AbortController();
  readonly #queue: Envelope[] = [];
  readonly #reading: Promise<void>;
  #wake: (() => void)[] = [];

  constructor(events: Events, filters: string[], token: string, mark: string) {
    this.mark = mark;
    this.#reading = this.#read(events, filters, `${token}.`);
    this.#reading.catch(() => {});
  }

  async #read(events: Events, filters: string[], prefix: string): Promise<void> {
    try {
      for await (const envelope of events.subscribe({ filters }, { signal: this.#abort.signal })) {
        const { namespace, topic } = envelope;
        if (!namespace.startsWith(prefix)) continue;
        if (topic === this.mark) this.marks += 1;
        else if (!topic.startsWith('/suite/'))
          this.#queue.push({ ...envelope, namespace: namespace.slice(prefix.length) });
        for (const wake of this.#wake.splice(0)) wake();
      }
    } catch (error) {
      if (!this.#abort.signal.aborted) throw error;
    }
  }

  /** Resolves at the next event of any kind, rejects when the subscription has failed. */
  async more(): Promise<void> {
    await Promise.race([this.#reading, new Promise<void>((resolve) => this.#wake.push(resolve))]);
  }

  async next(): Promise<Envelope> {
    while (this.#queue.length === 0) await this.more();
    return this.#queue.shift()!;
  }

  /** What has come and was not taken. */
  waiting(): Envelope[] {
    return this.#queue.splice(0);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#reading.catch(() => {});
  }
}
