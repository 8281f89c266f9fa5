/** Streams of clients that outlive several generations of the plugin that they are of: complete, in order, nothing twice. */
import { createHash, randomBytes } from 'node:crypto';
import test from 'ava';
import {
  ContentDefinition,
  ReadContentRequest,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { useClient } from '../helpers/trouped.ts';

const content = 'io.containerd.content.v1.content';
const exchange = 'io.containerd.event.v1.exchange';
const reloads = 4;
/** What nothing refers to is collected otherwise. */
const labels = { 'containerd.io/gc.root': 'test' };
const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Messages that a test sends one at a time. */
class Pushed<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = [];
  #ended = false;
  #wake = (): void => {};

  push(message: T): void {
    this.#waiting.push(message);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    while (!this.#ended || this.#waiting.length > 0) {
      const next = this.#waiting.shift();
      if (next !== undefined) yield next;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}

test('B14 a Content.Write and a Content.Read that outlive four reloads of content are complete and in order', async (t) => {
  t.timeout(120_000);
  const daemon = await useDaemon(t);
  const blobs = useClient(t, daemon, ContentDefinition);
  const kernel = useClient(t, daemon, KernelDefinition);
  const before = (await kernel.list({ ids: [content] })).plugins[0]!.generation;

  // More than all buffers between the disk and this client hold: the download is still under way in the last generation.
  const stored = randomBytes(32 << 20);
  const whole = new Pushed<WriteContentRequest>();
  for (let offset = 0; offset < stored.length; offset += 1 << 20)
    whole.push(
      WriteContentRequest.fromPartial({
        action: WriteAction.WRITE,
        ref: 'stored',
        offset: BigInt(offset),
        data: stored.subarray(offset, offset + (1 << 20)),
      }),
    );
  whole.push(WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, offset: BigInt(stored.length), labels }));
  whole.end();
  for await (const _ of blobs.write(whole));
  const download = blobs.read(ReadContentRequest.fromPartial({ digest: digestOf(stored) }))[Symbol.asyncIterator]();
  const got: Uint8Array[] = [];
  let offset = 0n;
  const take = async (): Promise<boolean> => {
    const { value, done } = await download.next();
    if (done === true) return false;
    t.is(value.offset, offset);
    offset += BigInt(value.data.length);
    got.push(value.data);
    return true;
  };

  const parts = Array.from({ length: reloads + 1 }, () => randomBytes(300_000));
  const requests = new Pushed<WriteContentRequest>();
  const upload = blobs.write(requests)[Symbol.asyncIterator]();
  let sent = 0n;
  for (const data of parts) {
    requests.push(WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref: 'new', offset: sent, data }));
    sent += BigInt(data.length);
    const { value } = await upload.next();
    t.is(value?.offset, sent);
    t.true(await take());
    if (data === parts.at(-1)) break;
    const { outcome, reason } = await kernel.reload({ id: content, force: true });
    t.is(outcome, 'reloaded', reason);
  }
  t.true(offset < BigInt(stored.length));
  const expected = digestOf(Buffer.concat(parts));
  requests.push(
    WriteContentRequest.fromPartial({
      action: WriteAction.COMMIT,
      offset: sent,
      total: sent,
      expected,
      ref: 'new',
      labels,
    }),
  );
  requests.end();
  t.is((await upload.next()).value?.digest, expected);
  t.true((await upload.next()).done);
  while (await take());
  t.is(digestOf(Buffer.concat(got)), digestOf(stored));

  // Of the generations between, nobody needs any more; what was written under the first is read by the last.
  const read: Uint8Array[] = [];
  for await (const { data } of blobs.read(ReadContentRequest.fromPartial({ digest: expected }))) read.push(data);
  t.is(digestOf(Buffer.concat(read)), expected);
  t.is((await kernel.list({ ids: [content] })).plugins[0]?.generation, before + reloads);
  t.deepEqual((await blobs.listStatuses({ filters: [] })).statuses, []);
});

test('B14 an Events.Subscribe that outlives four reloads of the exchange hears all that is published between and in them, once and in order', async (t) => {
  t.timeout(120_000);
  const daemon = await useDaemon(t);
  const events = useClient(t, daemon, EventsDefinition, 'reload');
  const kernel = useClient(t, daemon, KernelDefinition);
  const abort = new AbortController();
  const subscription = events
    .subscribe({ filters: ['namespace==reload,topic=="/number"'] }, { signal: abort.signal })
    [Symbol.asyncIterator]();
  const publish = (text: string) =>
    events.publish({ topic: '/number', event: { typeUrl: 'test.Number', value: Buffer.from(text) } });
  const hear = async (): Promise<string> => {
    const { value } = await subscription.next();
    return `${Buffer.from(value!.event!.value)}`;
  };
  // It stands when the first comes; how many were sent before that is of no interest.
  const first = hear();
  let stands = false;
  void first.then(() => {
    stands = true;
  });
  while (!stands) await publish('begin');
  let published = 0;
  for (let reload = 0; reload < reloads; reload++) {
    let over = false;
    const publishing = (async () => {
      // Also when the reload is so quick that nothing else was published meanwhile.
      do await publish(`${published++}`);
      while (!over);
    })();
    const { outcome, reason } = await kernel.reload({ id: exchange, force: true });
    over = true;
    t.is(outcome, 'reloaded', reason);
    await publishing;
  }
  await publish('end');
  const heard: string[] = [];
  for (let text = await hear(); text !== 'end'; text = await hear()) if (text !== 'begin') heard.push(text);
  t.deepEqual(
    heard,
    Array.from({ length: published }, (_, number) => `${number}`),
  );
  t.true(published >= reloads);
  abort.abort();
});
