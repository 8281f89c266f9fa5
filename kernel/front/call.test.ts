/** Calls through the front, with grpc-js as the client that decides what is right. */
import { once } from 'node:events';
import http2 from 'node:http2';
import { connect } from 'node:net';
import { Client, credentials, type Metadata, Metadata as MetadataClass, type ServiceError } from '@grpc/grpc-js';
import test from 'ava';
import { Failure } from '../sdk/failure.ts';
import { contract, openRig, type Rig, until } from './rig.ts';

const same = (bytes: Buffer): Buffer => bytes;

function channel(rig: Rig): Client {
  return new Client(`unix:${rig.address}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': 64 << 20,
    'grpc.max_send_message_length': 64 << 20,
    'grpc.use_local_subchannel_pool': 1,
  });
}

function unary(
  client: Client,
  method: string,
  request: Buffer,
  metadata = new MetadataClass(),
  deadline?: number,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      `/${contract}/${method}`,
      same,
      same,
      request,
      metadata,
      deadline === undefined ? {} : { deadline },
      (error, reply) => (error === null ? resolve(reply!) : reject(error)),
    );
  });
}

async function fails(promise: Promise<unknown>): Promise<ServiceError> {
  try {
    await promise;
  } catch (error) {
    return error as ServiceError;
  }
  throw new Error('did not fail');
}

async function withRig(work: (rig: Rig, client: Client) => Promise<void>, limits = {}): Promise<void> {
  const rig = await openRig(limits);
  const client = channel(rig);
  try {
    await work(rig, client);
  } finally {
    client.close();
    await rig.close();
  }
}

/** Nothing is left of any call. */
async function clean(t: { is(a: unknown, b: unknown): void }, rig: Rig): Promise<void> {
  await until(
    () => rig.server.streams === 0 && rig.dispatcher.running === 0 && rig.router.pending === 0,
    'calls are gone',
  );
  t.is(rig.server.memory, 0);
}

test.serial('unary: bytes of every length around the sizes of frames, windows and slabs come back', async (t) => {
  await withRig(async (rig, client) => {
    for (const size of [
      0,
      1,
      2043,
      2048,
      16_379,
      16_380,
      16_384,
      65_535,
      65_536,
      1 << 20,
      (1 << 20) + 1,
      5_000_000,
      16 << 20,
    ]) {
      const request = Buffer.alloc(size);
      for (let at = 0; at < size; at += 997) request[at] = at;
      t.true((await unary(client, 'Unary', request)).equals(request), String(size));
    }
    await clean(t, rig);
  });
});

test.serial('unary: a thousand at once', async (t) => {
  await withRig(async (rig, client) => {
    const replies = await Promise.all(
      Array.from({ length: 1000 }, (_, at) => unary(client, 'Unary', Buffer.from(`call ${at}`))),
    );
    t.true(replies.every((reply, at) => reply.toString() === `call ${at}`));
    await clean(t, rig);
  });
});

test.serial(
  'metadata: namespace, lease, trace and deadline arrive; of a repeated header the first value',
  async (t) => {
    await withRig(async (_rig, client) => {
      const metadata: Metadata = new MetadataClass();
      metadata.add('containerd-namespace', 'inner');
      metadata.add('containerd-namespace', 'outer');
      metadata.add('containerd-lease', 'l1');
      metadata.add('traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
      const deadline = Date.now() + 60_000;
      const seen = JSON.parse((await unary(client, 'Meta', Buffer.alloc(0), metadata, deadline)).toString());
      t.is(seen.namespace, 'inner');
      t.is(seen.lease, 'l1');
      t.is(seen.trace, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
      t.true(Math.abs(seen.deadline - deadline) < 10_000);
    });
  },
);

test.serial('failures: code, text with every kind of character, and details arrive', async (t) => {
  await withRig(async (rig, client) => {
    const message = 'image "ü/日本":\t100% \u0007\n: not found';
    const details = Buffer.from('some status').toString('base64');
    const error = await fails(
      unary(client, 'Fail', Buffer.from(JSON.stringify({ code: 'NotFound', message, details }))),
    );
    t.is(error.code, 5);
    t.is(error.details, message);
    t.is(error.metadata.get('grpc-status-details-bin')[0]?.toString(), 'some status');
    const long = await fails(
      unary(client, 'Fail', Buffer.from(JSON.stringify({ code: 'Unknown', message: 'x'.repeat(100_000) }))),
    );
    t.is(long.code, 2);
    t.is(long.details.length, 8 * 1024 + 1);
    await clean(t, rig);
  });
});

test.serial(
  'unknown services and methods, those that are not public, and those whose plugin fails to start',
  async (t) => {
    await withRig(async (rig, client) => {
      const code = async (path: string) =>
        (await fails(new Promise((_, reject) => client.makeUnaryRequest(path, same, same, Buffer.alloc(0), reject))))
          .code;
      t.is(await code('/test.v1.Nothing/Get'), 12);
      t.is(await code(`/${contract}/Nothing`), 12);
      t.is(await code(`/${contract}/unary`), 12);
      t.is(await code('/test.v1.Private/Get'), 12);
      const waits = code('/test.v1.Absent/Get');
      await until(() => rig.router.pending === 1, 'a call waits for its plugin');
      rig.router.down('test.v1.absent', new Failure('Unavailable', 'it has failed: unavailable'));
      t.is(await waits, 14);
      for (const path of [
        '//',
        '/',
        `//${contract}/Unary`,
        `/${contract}%2fUnary`,
        `/${contract}/Unary/`,
        `/${contract}//Unary`,
        '/__proto__/x',
        '/constructor/x',
      ]) {
        t.is(await code(path), 12, path);
      }
    });
  },
);

test.serial('B23 a deadline ends a call on both sides', async (t) => {
  await withRig(async (rig, client) => {
    const error = await fails(unary(client, 'Hang', Buffer.alloc(0), new MetadataClass(), Date.now() + 50));
    t.is(error.code, 4);
    await until(() => rig.seen.cancelled === 1, 'the handler sees its end');
    await clean(t, rig);
  });
});

test.serial('B24 cancellation reaches the handler', async (t) => {
  await withRig(async (rig, client) => {
    const error = fails(
      new Promise((_, reject) => {
        const call = client.makeUnaryRequest(`/${contract}/Hang`, same, same, Buffer.alloc(0), reject);
        void until(() => rig.seen.running === 1, 'the call runs').then(() => call.cancel());
      }),
    );
    t.is((await error).code, 1);
    await until(() => rig.seen.cancelled === 1, 'the handler sees it');
    await clean(t, rig);
  });
});

test.serial('B24 a client that vanishes cancels all its calls', async (t) => {
  await withRig(async (rig, client) => {
    const calls = Array.from({ length: 500 }, () => fails(unary(client, 'Hang', Buffer.alloc(0))));
    await until(() => rig.seen.running === 500, 'all run');
    client.close();
    const socketsGone = until(() => rig.seen.cancelled === 500, 'all are cancelled');
    // grpc-js closes its socket when its calls are over; the server is what ends them here.
    await rig.server.stop(0);
    await socketsGone;
    for (const call of calls) t.true([1, 14].includes((await call).code));
    await clean(t, rig);
  });
});

test.serial('messages beyond the limits of either direction', async (t) => {
  await withRig(
    async (rig, client) => {
      t.is((await fails(unary(client, 'Unary', Buffer.alloc(100_001)))).code, 8);
      t.is((await unary(client, 'Unary', Buffer.alloc(50_000))).length, 50_000);
      t.is((await fails(unary(client, 'Unary', Buffer.alloc(50_001)))).code, 8);
      await clean(t, rig);
    },
    { maxRecvMessageSize: 100_000, maxSendMessageSize: 50_000 },
  );
});

test.serial('server stream: every message in order, across windows', async (t) => {
  await withRig(async (rig, client) => {
    for (const [count, size] of [
      [0, 0],
      [1, 0],
      [10_000, 10],
      [300, 65_536],
      [3, 3_000_000],
    ] as const) {
      const call = client.makeServerStreamRequest(`/${contract}/Many`, same, same, Buffer.from(`${count} ${size}`));
      let at = 0;
      for await (const message of call as AsyncIterable<Buffer>) {
        t.true(
          message.length === size && (size === 0 || (message[0] === (at & 0xff) && message[size - 1] === (at & 0xff))),
        );
        at += 1;
      }
      t.is(at, count);
    }
    await clean(t, rig);
  });
});

test.serial('B28 a client that does not read stops its producer, and others go on', async (t) => {
  await withRig(async (rig, client) => {
    // grpc-js reads on whether it is asked or not; a bare HTTP/2 client does not.
    const session = http2.connect('http://localhost', { createConnection: () => connect(rig.address) });
    const stream = session.request({
      ':method': 'POST',
      ':path': `/${contract}/Forever`,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {});
    stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, 5]), Buffer.from('65536')]));
    await once(stream, 'response');
    stream.pause();
    let before = -1;
    // It has stopped when a hundred calls later nothing more was made.
    for (let round = 0; round < 50 && rig.seen.produced !== before; round++) {
      before = rig.seen.produced;
      for (let each = 0; each < 100; each++) await unary(client, 'Unary', Buffer.from('x'));
    }
    t.is(rig.seen.produced, before);
    t.true(rig.seen.produced > 0 && rig.seen.produced < 20);
    t.true(rig.server.memory < 512 << 10);
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await until(() => rig.seen.cancelled === 1, 'the producer ends');
    session.destroy();
    await clean(t, rig);
  });
});

test.serial('client stream: the sum of what was sent', async (t) => {
  await withRig(async (rig, client) => {
    const sum = await new Promise<Buffer>((resolve, reject) => {
      const call = client.makeClientStreamRequest(`/${contract}/Sum`, same, same, (error, reply) =>
        error === null ? resolve(reply!) : reject(error),
      );
      for (let at = 0; at < 100; at++) call.write(Buffer.alloc(1 << 20));
      call.end();
    });
    t.is(sum.toString(), String(100 << 20));
    await clean(t, rig);
  });
});

test.serial('B28 a plugin that does not take its messages stops the client, and loses nothing', async (t) => {
  await withRig(async (rig, client) => {
    let written = 0;
    const sum = new Promise<Buffer>((resolve, reject) => {
      const call = client.makeClientStreamRequest(`/${contract}/Stall`, same, same, (error, reply) =>
        error === null ? resolve(reply!) : reject(error),
      );
      const more = () => {
        while (written < 200) {
          written += 1;
          if (!call.write(Buffer.alloc(65_536))) {
            call.once('drain', more);
            return;
          }
        }
        call.end();
      };
      more();
    });
    await until(() => rig.seen.running === 1, 'the call runs');
    let before = -1;
    for (let round = 0; round < 50 && written !== before; round++) {
      before = written;
      for (let each = 0; each < 100; each++) await unary(client, 'Unary', Buffer.from('x'));
    }
    t.true(written < 100, `${written} were taken`);
    t.true(rig.server.memory <= 2 << 20);
    rig.release();
    t.is((await sum).toString(), String(200 * 65_536));
    await clean(t, rig);
  });
});

test.serial('both ways: a thousand messages to and fro, then a half-close', async (t) => {
  await withRig(async (rig, client) => {
    const call = client.makeBidiStreamRequest(`/${contract}/Both`, same, same);
    let count = 0;
    call.write(Buffer.from('0'));
    for await (const message of call as AsyncIterable<Buffer>) {
      t.is(message.toString(), String(count));
      count += 1;
      if (count === 1000) call.end();
      else if (count < 1000) call.write(Buffer.from(String(count)));
    }
    t.is(count, 1000);
    await clean(t, rig);
  });
});

test.serial('memory of one connection is bounded: what is beyond fails, the rest is served', async (t) => {
  await withRig(
    async (rig, client) => {
      const calls = Array.from({ length: 20 }, () =>
        unary(client, 'Unary', Buffer.alloc(1 << 20)).then(
          () => 0,
          (error: ServiceError) => error.code,
        ),
      );
      const codes = await Promise.all(calls);
      t.true(
        codes.every((code) => code === 0 || code === 8),
        String(codes),
      );
      t.is(await unary(client, 'Unary', Buffer.alloc(1 << 20)).then((reply) => reply.length), 1 << 20);
      await clean(t, rig);
    },
    { connectionMemory: 3 << 20 },
  );
});

test.serial('B4 calls of a plugin that is still starting wait for it, whatever their kind', async (t) => {
  const rig = await openRig({}, true);
  const client = channel(rig);
  const one = unary(client, 'Unary', Buffer.from('early'));
  const none = fails(unary(client, 'Nothing', Buffer.alloc(0)));
  const failure = fails(unary(client, 'Fail', Buffer.from('{"code":"NotFound","message":"x"}')));
  const many = client.makeServerStreamRequest(`/${contract}/Many`, same, same, Buffer.from('5 10'));
  const sum = new Promise<Buffer>((resolve, reject) => {
    const call = client.makeClientStreamRequest(`/${contract}/Sum`, same, same, (error, reply) =>
      error === null ? resolve(reply!) : reject(error),
    );
    for (let at = 0; at < 20; at++) call.write(Buffer.alloc(100_000));
    call.end();
  });
  await until(() => rig.router.pending === 5, 'they wait');
  rig.arrive();
  t.is((await one).toString(), 'early');
  t.is((await none).code, 12);
  t.is((await failure).code, 5);
  let count = 0;
  for await (const message of many as AsyncIterable<Buffer>) count += message.length;
  t.is(count, 50);
  t.is((await sum).toString(), '2000000');
  t.is((await unary(client, 'Unary', Buffer.from('later'))).toString(), 'later');
  client.close();
  await clean(t, rig);
  await rig.close();
});
