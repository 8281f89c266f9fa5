import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata, Server, ServerCredentials, type ServerUnaryCall, status } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { EventsDefinition, PublishRequest } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { publish } from '../cli/publish.ts';
import { Failure } from '../sdk/failure.ts';
import type { CallOptions } from '../sdk/plugin.ts';
import { type ClientOptions, GrpcClient, typedClient } from './client.ts';

const method = (path: string, requestStream: boolean, responseStream: boolean) => ({
  path,
  requestStream,
  responseStream,
  requestSerialize: (bytes: Buffer) => bytes,
  requestDeserialize: (bytes: Buffer) => bytes,
  responseSerialize: (bytes: Buffer) => bytes,
  responseDeserialize: (bytes: Buffer) => bytes,
});

interface Seen {
  readonly address: string;
  readonly publishes: { request: Buffer; namespace: unknown }[];
  /** A call of Silent has arrived. */
  readonly started: Promise<void>;
  readonly cancelled: Promise<void>;
}

function socketPath(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'client-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  return join(dir, 's.sock');
}

/** A server that answers with what it was sent; `Fail` with a status, `Silent` never, `Count` without end. */
async function serve(t: ExecutionContext, address = socketPath(t)): Promise<Seen> {
  const server = new Server();
  const publishes: Seen['publishes'] = [];
  let start = () => {};
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  let cancel = () => {};
  const cancelled = new Promise<void>((resolve) => {
    cancel = resolve;
  });
  server.addService(
    {
      Echo: method('/t.T/Echo', false, false),
      Fail: method('/t.T/Fail', false, false),
      Silent: method('/t.T/Silent', false, false),
      Count: method('/t.T/Count', false, true),
      Join: method('/t.T/Join', true, false),
      Each: method('/t.T/Each', true, true),
      Publish: method('/containerd.services.events.v1.Events/Publish', false, false),
    },
    {
      Echo: (call: ServerUnaryCall<Buffer, Buffer>, reply: (error: null, value: Buffer) => void) =>
        reply(null, call.request),
      Fail: (_: unknown, reply: (error: object) => void) =>
        reply({ code: status.NOT_FOUND, details: 'container "x": not found', metadata: new Metadata() }),
      Silent: (call: { on(event: 'cancelled', listener: () => void): void }) => {
        call.on('cancelled', cancel);
        start();
      },
      Count: async (call: {
        write(b: Buffer): boolean;
        cancelled: boolean;
        on(event: 'cancelled', listener: () => void): void;
      }) => {
        call.on('cancelled', cancel);
        for (let i = 0; i < 1000 && !call.cancelled; i++) call.write(Buffer.from([i % 256]));
      },
      Join: async (call: AsyncIterable<Buffer>, reply: (error: null, value: Buffer) => void) => {
        const parts: Buffer[] = [];
        for await (const part of call) parts.push(part);
        reply(null, Buffer.concat(parts));
      },
      // By events: Node's iterator destroys a duplex stream when its readable half ends, unsent answers and all.
      Each: (call: {
        on(event: 'data' | 'end', listener: (part: Buffer) => void): void;
        write(b: Buffer): boolean;
        end(): void;
      }) => {
        call.on('data', (part) => call.write(part));
        call.on('end', () => call.end());
      },
      Publish: (call: ServerUnaryCall<Buffer, Buffer>, reply: (error: null, value: Buffer) => void) => {
        publishes.push({ request: call.request, namespace: call.metadata.get('containerd-namespace') });
        reply(null, Buffer.alloc(0));
      },
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${address}`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
  t.teardown(() => server.forceShutdown());
  return { address, publishes, started, cancelled };
}

function connect(t: ExecutionContext, address: string, options: ClientOptions = {}): GrpcClient {
  const client = new GrpcClient(address, { namespace: 'default', ...options });
  t.teardown(() => client.close());
  return client;
}

async function* chunks(count: number, size: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) yield new Uint8Array(size).fill(i);
}

test('all four kinds of call, bytes unchanged', async (t) => {
  const client = connect(t, (await serve(t)).address);
  await client.ready(5000);
  t.deepEqual([...(await client.unary('t.T/Echo', new Uint8Array([1, 2, 3]).subarray(1)))], [2, 3]);
  t.is((await client.clientStream('t.T/Join', chunks(40, 100_000))).length, 4_000_000);
  let received = 0;
  for await (const part of client.duplex('t.T/Each', chunks(40, 100_000))) received += part.length;
  t.is(received, 4_000_000);
  const counted: number[] = [];
  for await (const part of client.serverStream('t.T/Count', new Uint8Array())) {
    counted.push(part[0]!);
    if (counted.length === 3) break;
  }
  t.deepEqual(counted, [0, 1, 2]);
});

test('leaving a stream early and a signal cancel the call at the server; a deadline ends it here', async (t) => {
  const left = await serve(t);
  for await (const _ of connect(t, left.address).serverStream('t.T/Count', new Uint8Array())) break;
  await left.cancelled;
  const aborted = await serve(t);
  const abort = new AbortController();
  const call = connect(t, aborted.address).unary('t.T/Silent', new Uint8Array(), { signal: abort.signal });
  await aborted.started;
  abort.abort();
  t.is((await t.throwsAsync(call, { instanceOf: Failure })).code, 'Canceled');
  await aborted.cancelled;
  const slow = await serve(t);
  const late = connect(t, slow.address).unary('t.T/Silent', new Uint8Array(), { timeoutMs: 50 });
  t.is((await t.throwsAsync(late, { instanceOf: Failure })).code, 'DeadlineExceeded');
});

test('a patient client reaches a server by the first call after its return, and is refused in the end while there is none', async (t) => {
  const address = socketPath(t);
  const clients = [0, 1].map(() => connect(t, address, { patienceMs: 700 }));
  const byte = new Uint8Array([7]);
  // Each attempt makes the pause before the next one longer, up to half a second.
  for (let attempt = 0; attempt < 4; attempt++) {
    await Promise.all(
      clients.map(async (client) => {
        const failure = await t.throwsAsync(client.unary('t.T/Echo', byte), { instanceOf: Failure });
        t.is(failure.code, 'Unavailable');
      }),
    );
  }
  await serve(t, address);
  const [unary, stream] = clients as [GrpcClient, GrpcClient];
  const streamed = (async () => {
    for await (const part of stream.duplex('t.T/Each', chunks(1, 3))) return part.length;
    return 0;
  })();
  t.deepEqual([...(await unary.unary('t.T/Echo', byte))], [7]);
  t.is(await streamed, 3);
});

test('patience ends with the call’s deadline and its signal', async (t) => {
  const client = connect(t, socketPath(t), { patienceMs: 3000 });
  const byte = new Uint8Array([7]);
  const codeOf = async (work: Promise<unknown>) => (await t.throwsAsync(work, { instanceOf: Failure })).code;
  const each = async (options: CallOptions) => {
    for await (const part of client.duplex('t.T/Each', chunks(1, 3), options)) t.fail(`${part.length} bytes`);
  };
  t.is(await codeOf(client.unary('t.T/Echo', byte)), 'Unavailable');
  let refused = false;
  const patient = codeOf(client.unary('t.T/Echo', byte)).finally(() => {
    refused = true;
  });
  t.is(await codeOf(client.unary('t.T/Echo', byte, { timeoutMs: 50 })), 'DeadlineExceeded');
  t.is(await codeOf(each({ timeoutMs: 50 })), 'DeadlineExceeded');
  const controller = new AbortController();
  const aborted = [client.unary('t.T/Echo', byte, controller), each(controller)].map(codeOf);
  controller.abort();
  t.deepEqual(await Promise.all(aborted), ['Canceled', 'Canceled']);
  t.false(refused, 'one that has neither waits still');
  t.is(await patient, 'Unavailable');
});

test('a deadline that ends the patience is what is told, however early a timer rings', async (t) => {
  const client = connect(t, socketPath(t), { patienceMs: 3000 });
  const byte = new Uint8Array([7]);
  await t.throwsAsync(client.unary('t.T/Echo', byte));
  const codes = new Set<unknown>();
  const one = async (timeoutMs: number): Promise<void> => {
    await client.unary('t.T/Echo', byte, { timeoutMs }).catch((error) => codes.add((error as Failure).code));
  };
  await Promise.all(Array.from({ length: 400 }, (_, each) => one(20 + (each >> 1))));
  t.deepEqual([...codes], ['DeadlineExceeded']);
});

test('errors are Failures with the server’s class and words', async (t) => {
  const client = connect(t, (await serve(t)).address);
  const failure = await t.throwsAsync(client.unary('t.T/Fail', new Uint8Array()), { instanceOf: Failure });
  t.deepEqual([failure.code, failure.message], ['NotFound', 'container "x": not found']);
  t.is(
    (await t.throwsAsync(client.unary('t.T/Absent', new Uint8Array()), { instanceOf: Failure })).code,
    'Unimplemented',
  );
  const nobody = connect(t, '/nonexistent/s.sock');
  t.is((await t.throwsAsync(nobody.unary('t.T/Echo', new Uint8Array()), { instanceOf: Failure })).code, 'Unavailable');
  t.is((await t.throwsAsync(nobody.ready(50), { instanceOf: Failure })).code, 'Unavailable');
});

test('publish sends the event of stdin in its namespace', async (t) => {
  const seen = await serve(t);
  const any = Any.encode({ typeUrl: 'containerd.events.TaskExit', value: new Uint8Array([8, 1]) }).finish();
  await publish(seen.address, 'ns', '/tasks/exit', any);
  const [sent] = seen.publishes;
  t.deepEqual(sent?.namespace, ['ns']);
  const request = PublishRequest.decode(sent!.request);
  t.is(request.topic, '/tasks/exit');
  t.is(request.event?.typeUrl, 'containerd.events.TaskExit');
  t.deepEqual([...request.event!.value], [8, 1]);
  await t.throwsAsync(publish(seen.address, 'ns', '/t', new Uint8Array([255])), {
    message: 'publish: stdin is not a google.protobuf.Any',
  });
  await t.throwsAsync(publish('/nonexistent/s.sock', 'ns', '/t', any), {
    message: 'publish: no daemon answers on /nonexistent/s.sock: unavailable',
  });
  const typed = typedClient(connect(t, seen.address), EventsDefinition);
  await typed.publish({ topic: '/x', event: undefined });
  t.deepEqual(seen.publishes[1]?.namespace, ['default']);
});
