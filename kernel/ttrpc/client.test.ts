import { type Duplex, duplexPair } from 'node:stream';
import test from 'ava';
import { Request, Response } from 'troupe/proto/ttrpc/ttrpc.ts';
import { Failure } from '../sdk/failure.ts';
import { TtrpcClient, type TtrpcClientOptions } from './client.ts';
import { encodeFrame, type Frame, FrameDecoder, frameTypes, headerBytes, maxBodyBytes } from './frame.ts';

interface Peer {
  readonly client: TtrpcClient;
  readonly socket: Duplex;
  readonly faults: string[];
  /** The next request that the client sent. */
  next(): Promise<{ frame: Frame; request: Request }>;
  reply(streamId: number, response: Partial<Response>): void;
}

function connect(options: TtrpcClientOptions = {}): Peer {
  const [near, socket] = duplexPair();
  const faults: string[] = [];
  const client = new TtrpcClient(near, { ...options, onFault: (fault) => faults.push(fault) });
  const decoder = new FrameDecoder();
  const arrived: Frame[] = [];
  const waiting: ((frame: Frame) => void)[] = [];
  socket.on('error', () => {});
  socket.on('data', (chunk: Uint8Array) => {
    for (const frame of decoder.push(chunk)) {
      const waiter = waiting.shift();
      if (waiter === undefined) arrived.push(frame);
      else waiter(frame);
    }
  });
  return {
    client,
    socket,
    faults,
    async next() {
      const frame = arrived.shift() ?? (await new Promise<Frame>((resolve) => waiting.push(resolve)));
      return { frame, request: Request.decode(frame.body ?? new Uint8Array(0)) };
    },
    reply: (streamId, response) => {
      socket.write(
        encodeFrame(streamId, frameTypes.response, 0, Response.encode(Response.fromPartial(response)).finish()),
      );
    },
  };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('calls run at once on odd increasing streams and answers find their call in any order', async (t) => {
  const peer = connect();
  const first = peer.client.call('s.S', 'A', bytes('1'), {
    timeout: 5000,
    metadata: { 'containerd-namespace-ttrpc': 'default' },
  });
  const second = peer.client.call('s.S', 'B', bytes('2'), { timeout: 'none' });
  const a = await peer.next();
  const b = await peer.next();
  t.deepEqual([a.frame.streamId, b.frame.streamId], [1, 3]);
  t.is(a.frame.type, frameTypes.request);
  t.is(a.frame.flags, 0);
  t.is(a.request.service, 's.S');
  t.is(a.request.method, 'A');
  t.is(a.request.timeoutNano, 5_000_000_000n);
  t.deepEqual(a.request.metadata, [{ key: 'containerd-namespace-ttrpc', value: 'default' }]);
  t.is(b.request.timeoutNano, 0n);
  peer.reply(3, { payload: bytes('two') });
  peer.reply(1, { payload: bytes('one') });
  t.is(Buffer.from(await second).toString(), 'two');
  t.is(Buffer.from(await first).toString(), 'one');
  t.is(peer.client.pending, 0);
  peer.client.close();
});

test('a status is a Failure of its number', async (t) => {
  const peer = connect();
  const call = peer.client.call('s.S', 'A', bytes(''), { timeout: 5000 });
  await peer.next();
  peer.reply(1, { status: { code: 5, message: 'no such process', details: [] } });
  const failure = await t.throwsAsync(call, { instanceOf: Failure });
  t.is((failure as Failure).code, 'NotFound');
  t.is(failure.message, 'no such process');
  peer.client.close();
});

test('a silent peer costs its deadline; its late answer is neither a fault nor a result', async (t) => {
  const peer = connect();
  const failure = await t.throwsAsync(peer.client.call('s.S', 'A', bytes(''), { timeout: 20 }), {
    instanceOf: Failure,
  });
  t.is((failure as Failure).code, 'DeadlineExceeded');
  t.is(peer.client.pending, 0);
  peer.reply(1, { payload: bytes('late') });
  const alive = peer.client.call('s.S', 'B', bytes(''), { timeout: 5000 });
  peer.reply(3, { payload: bytes('ok') });
  t.is(Buffer.from(await alive).toString(), 'ok');
  t.deepEqual(peer.faults, []);
  peer.client.close();
});

test('a deadline that has passed is not sent', async (t) => {
  const peer = connect();
  await t.throwsAsync(peer.client.call('s.S', 'A', bytes(''), { timeout: 0 }), { message: /deadline exceeded/ });
  t.is(peer.socket.readableLength, 0);
  peer.client.close();
});

test('an abort rejects the call with its reason, before and during', async (t) => {
  const peer = connect();
  const controller = new AbortController();
  const call = peer.client.call('s.S', 'A', bytes(''), { timeout: 'none', signal: controller.signal });
  controller.abort();
  t.is(((await t.throwsAsync(call, { instanceOf: Failure })) as Failure).code, 'Canceled');
  await t.throwsAsync(peer.client.call('s.S', 'A', bytes(''), { timeout: 'none', signal: controller.signal }));
  t.is(peer.client.pending, 0);
  peer.client.close();
});

test('the death of the peer rejects every pending call, and later ones at once', async (t) => {
  const peer = connect();
  const calls = [1, 2, 3].map(() => peer.client.call('s.S', 'Wait', bytes(''), { timeout: 'none' }));
  const outcomes = Promise.allSettled(calls);
  peer.socket.destroy();
  for (const outcome of await outcomes)
    t.is(outcome.status === 'rejected' && (outcome.reason as Failure).code, 'Unavailable');
  t.is((await peer.client.closed).code, 'Unavailable');
  const later = await t.throwsAsync(peer.client.call('s.S', 'A', bytes(''), { timeout: 1000 }), {
    instanceOf: Failure,
  });
  t.is((later as Failure).code, 'Unavailable');
});

for (let cut = 1; cut < headerBytes; cut++) {
  test(`a header cut at byte ${cut} ends the connection`, async (t) => {
    const peer = connect();
    const call = peer.client.call('s.S', 'A', bytes(''), { timeout: 'none' });
    peer.socket.end(encodeFrame(1, frameTypes.response, 0, bytes('')).subarray(0, cut));
    await t.throwsAsync(call, { message: 'ttrpc: closed in mid-frame: unavailable' });
  });
}

test('an oversized answer fails its own call alone', async (t) => {
  const peer = connect();
  const big = peer.client.call('s.S', 'A', bytes(''), { timeout: 5000 });
  const small = peer.client.call('s.S', 'B', bytes(''), { timeout: 5000 });
  peer.socket.write(encodeFrame(1, frameTypes.response, 0, Buffer.alloc(maxBodyBytes + 1)));
  peer.reply(3, { payload: bytes('fine') });
  t.is(((await t.throwsAsync(big, { instanceOf: Failure })) as Failure).code, 'ResourceExhausted');
  t.is(Buffer.from(await small).toString(), 'fine');
  peer.client.close();
});

test('an oversized request is refused here', async (t) => {
  const peer = connect();
  const call = peer.client.call('s.S', 'A', Buffer.alloc(maxBodyBytes), { timeout: 5000 });
  t.is(((await t.throwsAsync(call, { instanceOf: Failure })) as Failure).code, 'ResourceExhausted');
  peer.client.close();
});

test('answers to no call, second answers, other types and strange flags are dropped and told once each', async (t) => {
  const peer = connect();
  const call = peer.client.call('s.S', 'A', bytes(''), { timeout: 5000 });
  await peer.next();
  for (const id of [0, 2, 99, 2 ** 31, 0xffff_ffff]) peer.reply(id, { payload: bytes('x') });
  for (const type of [0, 1, 3, 4, 255]) peer.socket.write(encodeFrame(1, type, 0xff, bytes('x')));
  peer.socket.write(
    encodeFrame(1, frameTypes.response, 0xff, Response.encode(Response.fromPartial({ payload: bytes('y') })).finish()),
  );
  t.is(Buffer.from(await call).toString(), 'y');
  peer.reply(1, { payload: bytes('again') });
  const next = peer.client.call('s.S', 'B', bytes(''), { timeout: 5000 });
  await peer.next();
  peer.reply(3, {});
  t.is((await next).length, 0);
  t.deepEqual(peer.faults.filter((fault) => fault.includes('no pending call')).length, 1);
  t.is(peer.faults.length, 6);
  peer.client.close();
});

test('an answer that is no protobuf fails its call and leaves the connection', async (t) => {
  const peer = connect();
  const call = peer.client.call('s.S', 'A', bytes(''), { timeout: 5000 });
  peer.socket.write(encodeFrame(1, frameTypes.response, 0, Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff])));
  t.is(((await t.throwsAsync(call, { instanceOf: Failure })) as Failure).code, 'Internal');
  t.is(peer.client.end, undefined);
  peer.client.close();
});

test('waiting calls and unsent bytes are bounded', async (t) => {
  const peer = connect({ maxPending: 3 });
  const held = [1, 2, 3].map(() => peer.client.call('s.S', 'Wait', bytes(''), { timeout: 'none' }));
  const outcomes = Promise.allSettled(held);
  const over = await t.throwsAsync(peer.client.call('s.S', 'Wait', bytes(''), { timeout: 'none' }), {
    instanceOf: Failure,
  });
  t.is((over as Failure).code, 'ResourceExhausted');
  peer.client.close();
  await outcomes;

  const deaf = connect({ maxUnsentBytes: 1 << 20 });
  deaf.socket.pause();
  const sent: Promise<unknown>[] = [];
  for (let round = 0; round < 8; round++) {
    sent.push(deaf.client.call('s.S', 'A', Buffer.alloc(512 << 10), { timeout: 'none' }));
  }
  const settled = Promise.allSettled(sent);
  deaf.client.close();
  const codes = (await settled).map((outcome) => outcome.status === 'rejected' && (outcome.reason as Failure).code);
  t.true(codes.includes('ResourceExhausted'));
});
