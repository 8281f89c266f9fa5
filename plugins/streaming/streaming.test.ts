/** Both ends of a stream, in one thread: what a client opens, a plugin takes, and either ends. */
import test, { type ExecutionContext } from 'ava';
import { StreamInit, StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { Data } from 'troupe/proto/containerd/types/transfer/stream.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import { End, StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import { type InProcess, inProcess } from '../../test/helpers/in-process.ts';
import { Pipe } from '../lib/pipe/pipe.ts';
import streaming from './index.ts';

const init = (id: string): Any => ({ typeUrl: StreamInit.$type, value: StreamInit.encode({ id }).finish() });
const data = (text: string): Any => ({ typeUrl: Data.$type, value: Data.encode({ data: Buffer.from(text) }).finish() });
const textOf = ({ value }: Any): string => Buffer.from(Data.decode(value).data).toString();

interface Side {
  readonly sent: Pipe<Any>;
  next(): Promise<Any | undefined>;
}

async function useStreaming(t: ExecutionContext, max = 10): Promise<InProcess> {
  const daemon = inProcess(t);
  await daemon.add(streaming, { id: 'io.containerd.streaming.v1.manager', config: { max_streams: max } });
  return daemon;
}

/** One side, after the answer to its first message. */
async function side(
  daemon: InProcess,
  which: 'client' | 'plugin',
  id: string,
  namespace = 'n',
  signal?: AbortSignal,
): Promise<Side> {
  const sent = new Pipe<Any>();
  const call = { namespace, ...(signal && { signal }) };
  const replies = (
    which === 'client'
      ? daemon.client(StreamingDefinition).stream(sent, call)
      : daemon.client(StreamsDefinition).attach(sent, call)
  )[Symbol.asyncIterator]();
  const next = async (): Promise<Any | undefined> => {
    const { done, value } = await replies.next();
    return done === true ? undefined : (value as Any);
  };
  const first = next();
  void sent.write(init(id));
  const opened = await first;
  if (opened?.typeUrl !== 'google.protobuf.Empty') throw new Error(`${opened?.typeUrl} came`);
  return { sent, next };
}

test('messages go through both ways, in order; the client is told the end by the plugin', async (t) => {
  const daemon = await useStreaming(t);
  const client = await side(daemon, 'client', 'a');
  const plugin = await side(daemon, 'plugin', 'a');
  for (const text of ['1', '2', '3']) {
    void client.sent.write(data(text));
    t.is(textOf((await plugin.next())!), text);
  }
  void plugin.sent.write(data('back'));
  t.is(textOf((await client.next())!), 'back');
  client.sent.end();
  t.is((await plugin.next())!.typeUrl, End.$type);
  void plugin.sent.write(data('last'));
  plugin.sent.end();
  t.is(textOf((await client.next())!), 'last');
  t.is(await client.next(), undefined);
});

test('a stream is one: of its namespace, opened once, taken once', async (t) => {
  const daemon = await useStreaming(t, 2);
  await side(daemon, 'client', 'a');
  await t.throwsAsync(side(daemon, 'client', 'a'), { message: /stream "a": already exists/ });
  await t.throwsAsync(side(daemon, 'plugin', 'a', 'other'), { message: /stream "a": not found/ });
  await side(daemon, 'plugin', 'a');
  await t.throwsAsync(side(daemon, 'plugin', 'a'), { message: /not found/ });
  await side(daemon, 'client', 'a', 'other');
  await t.throwsAsync(side(daemon, 'client', 'c'), { message: /2 streams are open: resource exhausted/ });
  await t.throwsAsync(side(daemon, 'client', ''), { message: /needs an id/ });
  const sent = new Pipe<Any>();
  void sent.write(data('no init'));
  const replies = daemon.client(StreamingDefinition).stream(sent, { namespace: 'n' })[Symbol.asyncIterator]();
  await t.throwsAsync(Promise.resolve(replies.next()), { message: /not a StreamInit/ });
});

test('a client that goes away is no end of its archive, but a failure', async (t) => {
  const daemon = await useStreaming(t);
  const gone = new AbortController();
  const client = await side(daemon, 'client', 'a', 'n', gone.signal);
  const plugin = await side(daemon, 'plugin', 'a');
  void client.sent.write(data('some'));
  t.is(textOf((await plugin.next())!), 'some');
  gone.abort(new Error('the connection broke'));
  await t.throwsAsync(plugin.next());
});

test('who writes faster waits for who reads', async (t) => {
  const daemon = await useStreaming(t);
  const client = await side(daemon, 'client', 'a');
  const plugin = await side(daemon, 'plugin', 'a');
  let written = 0;
  const writing = (async () => {
    for (; written < 100; written++) if (!(await client.sent.write(data(String(written))))) return;
  })();
  await new Promise((resolve) => setImmediate(resolve));
  t.true(written < 10, `${written} were taken`);
  for (let read = 0; read < 100; read++) t.is(textOf((await plugin.next())!), String(read));
  await writing;
});
