/**
 * What a message between two plugins costs, with all that the bus does (scheduler, deadlines, credit, typed client, dispatcher), against a
 * bare MessagePort with structured clone of the same object, comlink, and a direct call.
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { Deadlines } from '../../kernel/bus/deadlines.ts';
import type { Port } from '../../kernel/bus/frames.ts';
import { dispatchPage } from '../../kernel/bus/link.ts';
import { Router } from '../../kernel/bus/router.ts';
import { Scheduler } from '../../kernel/bus/scheduler.ts';
import { setFlags } from '../../kernel/flags.ts';
import { clientOf } from '../../kernel/sdk/client.ts';
import type { Report, Row } from '../report.ts';
import { echoDefinition, realMessage, streamDefinition, takeDefinition } from './echo.ts';

const payloadBytes = 416;
const calls = 100_000;
/** The object of the comparison: what a plain RPC over a port would post for the same call. */
const asObject = (id: number, payload: unknown) => ({
  id,
  method: 'bench.Echo/Echo',
  namespace: 'default',
  deadline: Date.now() + 60_000,
  trace: '',
  payload,
});

export async function bench(rounds: number): Promise<Report> {
  // What the daemon's threads run with, for both.
  setFlags();
  const side = await farSide();
  const rows: Row[] = [];
  const measure = async (
    what: string,
    unit: string,
    more: boolean,
    ours: () => Promise<number>,
    peer?: () => Promise<number>,
  ) => {
    const row = { what, unit, more, ours: [] as number[], peer: [] as number[] };
    await ours();
    await peer?.();
    for (let round = 0; round < rounds; round++) {
      row.ours.push(await ours());
      if (peer !== undefined) row.peer.push(await peer());
    }
    rows.push(row);
  };
  const payload = new Uint8Array(payloadBytes).fill(7);
  const echo = () => side.client.echo(payload, { timeoutMs: 60_000, namespace: 'default' });

  const message = realMessage();
  await measure(
    `message of ${takeDefinition.methods.take.requestType.encode(message).finish().length} bytes, acknowledged, window 1024, against a bare port with the same object`,
    'µs',
    false,
    () => inFlight(1024, calls, () => side.take.take(message, { timeoutMs: 60_000, namespace: 'default' })),
    () => side.rawWindow(1024, calls, message),
  );
  await measure(
    '416 opaque bytes and back, window 1024, against a bare port',
    'µs',
    false,
    () => inFlight(1024, calls, echo),
    () => side.rawWindow(1024, calls, payload),
  );
  await measure(
    'round trip, 1 in flight, against a bare port',
    'µs',
    false,
    () => inFlight(1, 5000, echo),
    () => side.rawWindow(1, 5000, payload),
  );
  await measure(
    'round trips, 64 in flight, against comlink',
    '/s',
    true,
    async () => 1e6 / (await inFlight(64, calls, echo)),
    async () => 1e6 / (await inFlight(64, 30_000, () => side.comlinkEcho(payload))),
  );
  for (const [name, size, count] of [
    ['4 KiB', 4096, 20_000],
    ['64 KiB', 65_536, 4000],
    ['1 MiB', 1 << 20, 400],
  ] as const) {
    await measure(
      `stream of ${name}, against a bare port`,
      'MiB/s',
      true,
      () => side.stream(size, count),
      () => side.rawStream(size, count),
    );
  }
  await measure('control ping p99 beside a full stream', 'ms', false, () => side.pingBeside());
  await side.worker.terminate();
  return {
    title: 'The bus',
    peer: 'bare port / comlink',
    rows,
    notes: [
      `direct call of the same function: ${(await direct()).toFixed(4)} µs`,
      'a bare port has no deadline, no credit, no scheduler, and starves its loop when it is kept full',
    ],
  };
}

/** Microseconds per call. */
async function inFlight(window: number, total: number, call: () => Promise<unknown>): Promise<number> {
  let left = total;
  const lane = async () => {
    while (left > 0) {
      left -= 1;
      await call();
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: window }, lane));
  return ((performance.now() - began) * 1000) / total;
}

async function direct(): Promise<number> {
  const echo = async (request: Uint8Array) => request;
  const payload = new Uint8Array(payloadBytes);
  return inFlight(1, 100_000, () => echo(payload));
}

async function farSide() {
  const link = new MessageChannel();
  const comlinkChannel = new MessageChannel();
  const raw = new MessageChannel();
  const page = dispatchPage();
  const worker = new Worker(new URL('far-side.ts', import.meta.url), {
    workerData: { link: link.port2, page, comlinkPort: comlinkChannel.port2, raw: raw.port2 },
    transferList: [link.port2, comlinkChannel.port2, raw.port2],
  });
  await new Promise((resolve) => worker.once('message', resolve));
  const router = new Router(
    { introduce: () => router.relink('far', { port: link.port1 as unknown as Port, page }) },
    new Scheduler(),
    new Deadlines(),
  );
  const provider = [{ slot: 'far', name: '', public: false, methods: {}, shapes: [] }];
  router.setRoutes({
    [echoDefinition.fullName]: provider,
    [takeDefinition.fullName]: provider,
    [streamDefinition.fullName]: provider,
  });
  const client = clientOf(router, 'bench', echoDefinition) as {
    echo(request: Uint8Array, options: object): Promise<Uint8Array>;
  };
  const take = clientOf(router, 'bench', takeDefinition);
  const streams = clientOf(router, 'bench', streamDefinition) as {
    stream(request: Uint8Array): AsyncIterable<Uint8Array>;
  };
  const remote = comlink.wrap<{ echo(request: unknown): unknown }>(nodeEndpoint(comlinkChannel.port1));

  const waiting = new Map<number, () => void>();
  let onChunk = (_bytes: number) => {};
  raw.port1.on('message', (message: { id?: number; chunk?: Uint8Array }) => {
    if (message.chunk !== undefined) {
      onChunk(message.chunk.byteLength);
      return;
    }
    const resolve = waiting.get(message.id!);
    waiting.delete(message.id!);
    resolve?.();
  });
  let nextId = 1;
  const payload = new Uint8Array(payloadBytes).fill(7);
  const rawCall = (message: unknown) =>
    new Promise<void>((resolve) => {
      const id = nextId++;
      waiting.set(id, resolve);
      raw.port1.postMessage(asObject(id, message));
    });
  const request = (size: number, count: number) => {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint32(0, size);
    new DataView(bytes.buffer).setUint32(4, count);
    return bytes;
  };
  const stream = async (size: number, count: number) => {
    const began = performance.now();
    let bytes = 0;
    for await (const chunk of streams.stream(request(size, count))) bytes += chunk.byteLength;
    return bytes / 2 ** 20 / ((performance.now() - began) / 1000);
  };
  return {
    worker,
    client,
    take,
    comlinkEcho: async (message: Uint8Array) => remote.echo(asObject(1, message)),
    rawWindow: (window: number, total: number, message: unknown) => inFlight(window, total, () => rawCall(message)),
    stream,
    rawStream: (size: number, count: number) =>
      new Promise<number>((resolve) => {
        const began = performance.now();
        let left = count;
        onChunk = () => {
          left -= 1;
          if (left === 0) resolve((size * count) / 2 ** 20 / ((performance.now() - began) / 1000));
        };
        raw.port1.postMessage({ size, count });
      }),
    async pingBeside() {
      const running = stream(65_536, 20_000);
      const times: number[] = [];
      for (let index = 0; index < 300; index++) {
        const began = performance.now();
        await client.echo(payload, {});
        times.push(performance.now() - began);
      }
      await running;
      return times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)]!;
    },
  };
}
