import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Request, Response } from 'troupe/proto/ttrpc/ttrpc.ts';
import { Failure } from '../sdk/failure.ts';
import { TtrpcClient } from './client.ts';
import { encodeFrame, FrameDecoder, frameFlags, frameTypes, maxBodyBytes } from './frame.ts';
import { TtrpcServer, type TtrpcServerCall, type TtrpcServerOptions } from './server.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A server on a unix socket of its own, gone with the test. */
async function serve(
  t: ExecutionContext,
  options: TtrpcServerOptions<Socket>,
): Promise<{ server: TtrpcServer<Socket>; dial(): Socket }> {
  const directory = mkdtempSync(join(tmpdir(), 'ttrpc-'));
  const path = join(directory, 's');
  const server = new TtrpcServer<Socket>(options);
  const listener = createServer((socket) => server.accept(socket)).listen(path);
  await once(listener, 'listening');
  t.teardown(async () => {
    server.close();
    await new Promise((resolve) => listener.close(resolve));
    rmSync(directory, { recursive: true });
  });
  return { server, dial: () => connect(path) };
}

async function* answers(socket: Socket): AsyncGenerator<{ streamId: number; response: Response }> {
  const decoder = new FrameDecoder();
  for await (const chunk of socket) {
    for (const frame of decoder.push(chunk as Uint8Array)) {
      yield { streamId: frame.streamId, response: Response.decode(frame.body ?? new Uint8Array(0)) };
    }
  }
}

const echo = async (call: TtrpcServerCall): Promise<Uint8Array> => call.payload;

function request(fields: Partial<Request>): Uint8Array {
  return Request.encode(Request.fromPartial(fields)).finish();
}

test('a call arrives with its names, metadata and time, and its answer goes back', async (t) => {
  const seen: TtrpcServerCall[] = [];
  const { dial } = await serve(t, {
    dispatch: async (call) => {
      seen.push(call);
      return Buffer.concat([call.payload, bytes('!')]);
    },
  });
  const client = new TtrpcClient(dial());
  const reply = await client.call('x.Events', 'Forward', bytes('hi'), { timeout: 5000, metadata: { a: '1' } });
  t.is(Buffer.from(reply).toString(), 'hi!');
  t.is(seen[0]?.service, 'x.Events');
  t.is(seen[0]?.method, 'Forward');
  t.is(seen[0]?.timeout, 5000);
  t.deepEqual(seen[0]?.metadata.get('a'), ['1']);
  client.close();
});

test('a Failure becomes a status; any other error is Unknown', async (t) => {
  const { dial } = await serve(t, {
    dispatch: async (call) => {
      if (call.method === 'A') throw new Failure('Unimplemented', 'method A: not implemented');
      throw new Error('boom');
    },
  });
  const client = new TtrpcClient(dial());
  const first = (await t.throwsAsync(client.call('x', 'A', bytes(''), { timeout: 5000 }))) as Failure;
  t.is(first.code, 'Unimplemented');
  t.is(first.message, 'method A: not implemented');
  t.is(((await t.throwsAsync(client.call('x', 'B', bytes(''), { timeout: 5000 }))) as Failure).code, 'Unknown');
  client.close();
});

test('bad stream ids are told so and the connection stays', async (t) => {
  const { dial } = await serve(t, { dispatch: echo });
  const socket = dial();
  const body = request({ service: 'x', method: 'A', payload: bytes('p') });
  for (const id of [0, 2, 2 ** 31, 7, 7, 5, 9]) socket.write(encodeFrame(id, frameTypes.request, 0, body));
  const got: [number, number][] = [];
  for await (const { streamId, response } of answers(socket)) {
    got.push([streamId, response.status?.code ?? 0]);
    if (got.length === 7) break;
  }
  const sorted = got.map(([id, code]) => `${id}:${code}`).sort();
  t.deepEqual(sorted, ['0:3', '2:3', '2147483648:3', '5:3', '7:0', '7:3', '9:0'].sort());
});

test('an oversized request is refused and the next one served', async (t) => {
  const { dial } = await serve(t, { dispatch: echo });
  const socket = dial();
  socket.write(encodeFrame(1, frameTypes.request, 0, Buffer.alloc(maxBodyBytes + 1)));
  socket.write(encodeFrame(3, frameTypes.request, 0, request({ service: 'x', method: 'A', payload: bytes('ok') })));
  const iterator = answers(socket);
  const first = (await iterator.next()).value;
  t.is(first?.streamId, 1);
  t.is(first?.response.status?.code, 8);
  const second = (await iterator.next()).value;
  t.is(second?.streamId, 3);
  t.is(Buffer.from(second?.response.payload ?? []).toString(), 'ok');
  socket.destroy();
});

test('other types are ignored, an open stream is unimplemented, garbage is invalid, an empty body is a call of nothing', async (t) => {
  const { dial } = await serve(t, { dispatch: echo });
  const socket = dial();
  for (const type of [0, 2, 3, 4, 255]) socket.write(encodeFrame(1, type, 0xff, bytes('x')));
  socket.write(encodeFrame(1, frameTypes.request, frameFlags.remoteOpen, request({ service: 'x' })));
  socket.write(encodeFrame(3, frameTypes.request, 0, Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff])));
  socket.write(encodeFrame(5, frameTypes.request, frameFlags.remoteClosed, new Uint8Array(0)));
  const codes = new Map<number, number>();
  for await (const { streamId, response } of answers(socket)) {
    codes.set(streamId, response.status?.code ?? 0);
    if (codes.size === 3) break;
  }
  t.deepEqual([...codes].sort(), [
    [1, 12],
    [3, 3],
    [5, 0],
  ]);
});

test('a peer that is not admitted is closed before its bytes are read', async (t) => {
  let calls = 0;
  const { dial, server } = await serve(t, {
    admit: () => false,
    dispatch: async () => {
      calls += 1;
      return bytes('');
    },
  });
  const socket = dial();
  socket.on('error', () => {});
  socket.write(encodeFrame(1, frameTypes.request, 0, request({ service: 'x', method: 'A' })));
  await new Promise((resolve) => socket.on('close', resolve));
  t.is(calls, 0);
  t.is(server.connections, 0);
});

test('the deadline of a call answers it, and its signal tells the one who works on it', async (t) => {
  let reason: unknown;
  const { dial } = await serve(t, {
    dispatch: (call) =>
      new Promise(() => {
        call.signal.addEventListener('abort', () => {
          reason = call.signal.reason;
        });
      }),
  });
  const socket = dial();
  socket.write(encodeFrame(1, frameTypes.request, 0, request({ service: 'x', method: 'A', timeoutNano: 1_000_000n })));
  const { value } = await answers(socket).next();
  t.is(value?.response.status?.code, 4);
  t.is((reason as Error).name, 'TimeoutError');
  socket.destroy();
});

test('a client that vanishes aborts what runs for it', async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { promise: running, resolve: started } = Promise.withResolvers<void>();
  const { dial, server } = await serve(t, {
    dispatch: (call) => {
      started();
      call.signal.addEventListener('abort', () => resolve());
      return new Promise(() => {});
    },
  });
  const socket = dial();
  socket.write(encodeFrame(1, frameTypes.request, 0, request({ service: 'x', method: 'A' })));
  await running;
  socket.destroy();
  await promise;
  t.is(server.connections, 0);
});

test('a flood of calls is served at most maxRunning at once, and all of it', async (t) => {
  let running = 0;
  let most = 0;
  const { dial } = await serve(t, {
    maxRunning: 4,
    dispatch: async (call) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
      return call.payload;
    },
  });
  const client = new TtrpcClient(dial());
  const calls = Array.from({ length: 2000 }, () => client.call('x', 'A', Buffer.alloc(1024), { timeout: 60_000 }));
  const replies = await Promise.all(calls);
  t.is(replies.length, 2000);
  t.is(most, 4);
  client.close();
});

test('connections over the limit are closed', async (t) => {
  const { dial, server } = await serve(t, { maxConnections: 1, dispatch: echo });
  const first = new TtrpcClient(dial());
  await first.call('x', 'A', bytes(''), { timeout: 5000 });
  const second = new TtrpcClient(dial());
  t.is((await second.closed).code, 'Unavailable');
  t.is(server.connections, 1);
  first.close();
});
