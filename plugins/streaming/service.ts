/**
 * containerd.services.streaming.v1.Streaming for clients, and troupe.streaming.v1.Streams for plugins: the two ends of one stream.
 *
 * Messages are not looked at. A client that half-closes has said all it has to say; a plugin that ends its call ends the stream, which the client sees as
 * its end. The answer to StreamInit goes out after the stream can be taken, so that a client may name it in its next call.
 */
import { type Call, Failure, release, type Service } from 'troupe/plugin';
import { StreamInit, type StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import { End, type StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import type { OpenStream, OpenStreams } from './open-streams.ts';
import type { Pipe } from '../lib/pipe/pipe.ts';

const opened: Any = { typeUrl: 'google.protobuf.Empty', value: new Uint8Array(0) };

export function serveStreaming(open: OpenStreams): Service<typeof StreamingDefinition> {
  return {
    async *stream(requests, call) {
      const namespace = requireNamespace(call);
      const messages = requests[Symbol.asyncIterator]();
      const id = idOf(await messages.next());
      const stream = open.open(namespace, id);
      try {
        endWith(call, stream);
        pump(messages, stream.fromClient);
        yield opened;
        yield* passed(stream.toClient);
      } finally {
        open.close(namespace, id);
        stream.end(new Failure('Canceled', `stream ${id}: its client has gone: context canceled`));
      }
    },
  };
}

export function serveStreams(open: OpenStreams): Service<typeof StreamsDefinition> {
  return {
    async *attach(requests, call) {
      const namespace = requireNamespace(call);
      const messages = requests[Symbol.asyncIterator]();
      const stream = open.take(namespace, idOf(await messages.next()));
      try {
        endWith(call, stream);
        pump(messages, stream.toClient);
        yield opened;
        yield* passed(stream.fromClient);
        // The client has nothing more to say; what is said to it goes on until the plugin ends its side.
        yield { typeUrl: End.$type, value: new Uint8Array(0) };
        await stream.toClient.closed;
      } finally {
        stream.end();
      }
    },
  };
}

/** @throws Failure InvalidArgument */
function idOf(first: IteratorResult<Any, unknown>): string {
  if (first.done === true)
    throw new Failure('InvalidArgument', 'the stream ended before its first message: invalid argument');
  const name = first.value.typeUrl.slice(first.value.typeUrl.lastIndexOf('/') + 1);
  if (name !== StreamInit.$type)
    throw new Failure(
      'InvalidArgument',
      `the first message is a ${name.slice(0, 100)}, not a StreamInit: invalid argument`,
    );
  return StreamInit.decode(first.value.value).id;
}

function endWith(call: Call, stream: OpenStream): void {
  call.signal.addEventListener('abort', () => stream.end(Failure.from(call.signal.reason)), { once: true });
}

/** Whoever asks for the next message has sent the one before. */
async function* passed(messages: AsyncIterable<Any>): AsyncGenerator<Any, void, undefined> {
  for await (const message of messages) {
    yield message;
    release(message.value);
  }
}

/** Until one of both ends; never rejects, the other end hears of a failure. */
async function pump(messages: AsyncIterator<Any>, pipe: Pipe<Any>): Promise<void> {
  try {
    for (;;) {
      const { done, value } = await messages.next();
      if (done === true) return pipe.end();
      if (!(await pipe.write(value))) return;
    }
  } catch (error) {
    pipe.end(Failure.from(error));
  } finally {
    await messages.return?.();
  }
}
