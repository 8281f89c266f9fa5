/**
 * For tests: the front's server with a plugin behind it, in one thread, over real links; and its sockets. The plugin's messages are bytes as they are, and its
 * methods do what hostile and honest clients need: echo, count, stall, fail.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import { CalleeLink } from '../bus/callee.ts';
import { Deadlines } from '../bus/deadlines.ts';
import type { Port } from '../bus/frames.ts';
import { dispatchPage } from '../bus/link.ts';
import { Router } from '../bus/router.ts';
import { defaultPolicy, type Routes } from '../bus/routes.ts';
import { Scheduler } from '../bus/scheduler.ts';
import { Dispatcher } from '../sdk/dispatcher.ts';
import { Failure } from '../sdk/failure.ts';
import type { Call, Log, MethodDefinition, ServiceDefinition } from '../sdk/plugin.ts';
import type { FrontLimits } from './config.ts';
import { GrpcServer } from './grpc-server.ts';
import { MethodTable } from './methods.ts';

export const rigLimits: FrontLimits = {
  maxRecvMessageSize: 16 << 20,
  maxSendMessageSize: 16 << 20,
  maxConnections: 512,
  maxTcpConnections: 64,
  maxStreams: 10_000,
  maxHeaderSize: 64 << 10,
  connectionMemory: 64 << 20,
  memory: 256 << 20,
  handshakeMs: 5000,
};

export const slot = 'test.v1.echo';
export const contract = 'test.v1.Echo';

const bytes = {
  encode: (message: Uint8Array) => ({ finish: () => message }),
  decode: (input: Uint8Array) => input,
  fromPartial: (input: never) => input,
};
const method = (name: string, requestStream: boolean, responseStream: boolean): MethodDefinition => ({
  name,
  requestType: bytes,
  requestStream,
  responseType: bytes,
  responseStream,
});

const definition: ServiceDefinition = {
  name: 'Echo',
  fullName: contract,
  methods: {
    unary: method('Unary', false, false),
    meta: method('Meta', false, false),
    fail: method('Fail', false, false),
    hang: method('Hang', false, false),
    slow: method('Slow', false, false),
    many: method('Many', false, true),
    forever: method('Forever', false, true),
    sum: method('Sum', true, false),
    stall: method('Stall', true, false),
    both: method('Both', true, true),
  },
};

const shapes = Object.values(definition.methods).map(({ name, requestStream, responseStream }) => ({
  path: `${contract}/${name}`,
  requestStream,
  responseStream,
}));

export interface Seen {
  calls: number;
  running: number;
  /** Messages that `Both`, `Many` and `Forever` have made. */
  produced: number;
  cancelled: number;
}

function service(seen: Seen, release: Promise<void>): object {
  const text = (message: Uint8Array) => Buffer.from(message).toString();
  const wait = async (_request: Uint8Array, call: Call) => {
    seen.running += 1;
    await Promise.race([
      release,
      new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve())),
    ]);
    seen.running -= 1;
    if (call.signal.aborted) seen.cancelled += 1;
    return Buffer.from('released');
  };
  return {
    unary: (request: Uint8Array) => {
      seen.calls += 1;
      return request;
    },
    meta: (_request: Uint8Array, { namespace, lease, trace, deadline }: Call) =>
      Buffer.from(JSON.stringify({ namespace, lease, trace, deadline })),
    fail: (request: Uint8Array) => {
      const { code, message, details } = JSON.parse(text(request));
      throw new Failure(code, message, details === undefined ? {} : { details: Buffer.from(details, 'base64') });
    },
    hang: wait,
    slow: wait,
    /** `COUNT SIZE` */
    many: async function* (request: Uint8Array) {
      const [count = 0, size = 0] = text(request).split(' ').map(Number);
      for (let at = 0; at < count; at++) {
        seen.produced += 1;
        yield new Uint8Array(size).fill(at);
      }
    },
    forever: async function* (request: Uint8Array) {
      try {
        for (;;) {
          seen.produced += 1;
          yield new Uint8Array(Number(text(request)));
        }
      } finally {
        seen.cancelled += 1;
      }
    },
    sum: async (requests: AsyncIterable<Uint8Array>) => {
      let sum = 0;
      for await (const request of requests) sum += request.length;
      return Buffer.from(String(sum));
    },
    /** Takes nothing until it is released. */
    stall: async (requests: AsyncIterable<Uint8Array>) => {
      seen.running += 1;
      await release;
      let sum = 0;
      for await (const request of requests) sum += request.length;
      seen.running -= 1;
      return Buffer.from(String(sum));
    },
    both: async function* (requests: AsyncIterable<Uint8Array>) {
      for await (const request of requests) {
        seen.produced += 1;
        yield request;
      }
    },
  };
}

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

export interface Rig {
  readonly server: GrpcServer;
  readonly router: Router;
  readonly methods: MethodTable;
  readonly dispatcher: Dispatcher;
  readonly seen: Seen;
  readonly log: readonly LogLine[];
  /** Path of the unix socket. */
  readonly address: string;
  /** Lets `Hang`, `Slow` and `Stall` go on. */
  release(): void;
  arrive(): void;
  connect(): Promise<Socket>;
  close(): Promise<void>;
}

/** @param late the plugin has not started: nothing is known of it until `arrive` */
export async function openRig(limits: Partial<FrontLimits> = {}, late = false): Promise<Rig> {
  const log: LogLine[] = [];
  const write =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) =>
      void log.push({ level, message, fields });
  const logger: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  const deadlines = new Deadlines();
  const dispatcher = new Dispatcher(deadlines, logger, new Set());
  const seen: Seen = { calls: 0, running: 0, produced: 0, cancelled: 0 };
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  dispatcher.add(definition, service(seen, released) as never);

  const { port1, port2 } = new MessageChannel();
  const page = dispatchPage();
  new CalleeLink('front', port1 as unknown as Port, page, new Scheduler(), (call) => dispatcher.serve(call));
  const link = () => router.relink(slot, { port: port2 as unknown as Port, page });
  let arrive = () => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const router = new Router(
    { introduce: (name) => name === slot && void arrived.then(link) },
    new Scheduler(),
    deadlines,
  );
  const routes = (known: boolean): Routes => ({
    [contract]: [
      {
        slot,
        name: '',
        public: true,
        methods: { Hang: { ...defaultPolicy, unbounded: true } },
        shapes: known ? shapes : [],
      },
    ],
    'test.v1.Private': [
      {
        slot,
        name: '',
        public: false,
        methods: {},
        shapes: [{ path: 'test.v1.Private/Get', requestStream: false, responseStream: false }],
      },
    ],
    'test.v1.Absent': [{ slot: 'test.v1.absent', name: '', public: true, methods: {}, shapes: [] }],
  });
  router.setRoutes(routes(!late));
  if (!late) arrive();

  const methods = new MethodTable(router);
  const server = new GrpcServer(router, methods, { ...rigLimits, ...limits }, logger);
  const dir = mkdtempSync(join(tmpdir(), 'front-'));
  const address = join(dir, 's');
  const listener: Server = createServer((socket) =>
    server.accept(socket, { kind: 'unix', describe: () => ({ pid: 1 }) }),
  );
  await new Promise<void>((resolve) => listener.listen(address, resolve));
  return {
    server,
    router,
    methods,
    dispatcher,
    seen,
    log,
    address,
    release,
    arrive: () => {
      router.setRoutes(routes(true));
      arrive();
    },
    connect: () =>
      new Promise((resolve, reject) => {
        const socket = connect(address, () => resolve(socket));
        socket.on('error', reject);
      }),
    close: async () => {
      release();
      await server.stop(0);
      await new Promise((resolve) => listener.close(resolve));
      port1.close();
      port2.close();
      rmSync(dir, { recursive: true });
    },
  };
}

/** Resolves when `condition` holds; the condition is looked at after every turn of the loop. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
