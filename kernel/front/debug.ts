/**
 * The debug socket: HTTP at the paths of Go's expvar and pprof, so that `ctr pprof` and the habits of its users find something. What is behind a path is V8's:
 * threads for goroutines, .cpuprofile and .heapsnapshot for Go's protobuf.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Plugin } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { Failure } from '../sdk/failure.ts';
import { merged, profileThreads, traceEvents } from './profile.ts';
import { type InspectedThread, withThreads } from './threads.ts';

export interface DebugSource {
  /** The state of every thread, as text. */
  dump(): Promise<string>;
  plugins(): Promise<readonly Plugin[]>;
}

type Handler = (query: URLSearchParams, response: ServerResponse, signal: AbortSignal) => Promise<void>;

const longestProfileSeconds = 600;
/** A heap of 1 GB takes most of a minute to write down. */
const snapshotMs = 120_000;

const index = `goroutine     state of every thread and plugin
threadcreate  threads by name
heap          heap of every thread; ?thread=NAME: its V8 heap snapshot (.heapsnapshot)
block         how busy every plugin's event loop was
profile       CPU profile of all threads for ?seconds=30, as one V8 profile (.cpuprofile); ?thread=NAME: of one
trace         CPU profile of all threads for ?seconds=5, as trace events with a track per thread (.json)
cmdline       arguments of the process
`;

export function debugServer(source: DebugSource): Server {
  const handlers = handlersOf(source);
  const server = createServer((request, response) => void answer(handlers, request, response));
  server.maxConnections = 16;
  server.headersTimeout = 10_000;
  // A profile takes as long as it was asked for.
  server.requestTimeout = 0;
  return server;
}

async function answer(
  handlers: ReadonlyMap<string, Handler>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://debug');
  const handler = handlers.get(pathname.replace(/\/$/, ''));
  if (handler === undefined || request.method !== 'GET') {
    response.writeHead(handler === undefined ? 404 : 405).end();
    return;
  }
  try {
    await handler(searchParams, response, gone.signal);
  } catch (error) {
    const failure = Failure.from(error);
    const status =
      { InvalidArgument: 400, NotFound: 404, ResourceExhausted: 429, Unavailable: 503 }[failure.code as string] ?? 500;
    if (!response.headersSent) response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
    response.end(`${failure.message}\n`);
  }
}

function handlersOf(source: DebugSource): Map<string, Handler> {
  let profiling = false;
  const alone = async (work: () => Promise<void>): Promise<void> => {
    if (profiling) throw new Failure('ResourceExhausted', 'another profile is being taken: resource exhausted');
    profiling = true;
    try {
      await work();
    } finally {
      profiling = false;
    }
  };
  return new Map<string, Handler>([
    ['/debug/vars', async (_query, response) => json(response, await vars(source))],
    ['/debug/pprof', async (_query, response) => text(response, index)],
    ['/debug/pprof/goroutine', async (_query, response) => text(response, `${await source.dump()}\n`)],
    ['/debug/pprof/cmdline', async (_query, response) => text(response, process.argv.join('\0'))],
    ['/debug/pprof/threadcreate', async (_query, response) => text(response, await threadNames())],
    ['/debug/pprof/block', async (_query, response) => text(response, busy(await source.plugins()))],
    ['/debug/pprof/heap', async (query, response) => alone(() => heap(query.get('thread'), response))],
    ['/debug/pprof/allocs', async (query, response) => alone(() => heap(query.get('thread'), response))],
    [
      '/debug/pprof/profile',
      async (query, response, signal) =>
        alone(async () => {
          const profiles = await profileThreads(milliseconds(query, 30), signal);
          const wanted = query.get('thread');
          if (wanted === null) json(response, merged(profiles));
          else json(response, named(profiles, wanted, (each) => each.thread).profile);
        }),
    ],
    [
      '/debug/pprof/trace',
      async (query, response, signal) =>
        alone(async () => json(response, traceEvents(await profileThreads(milliseconds(query, 5), signal)))),
    ],
  ]);
}

function milliseconds(query: URLSearchParams, otherwise: number): number {
  const seconds = Number(query.get('seconds') ?? otherwise);
  if (!(seconds > 0 && seconds <= longestProfileSeconds)) {
    throw new Failure('InvalidArgument', `seconds must be between 0 and ${longestProfileSeconds}: invalid argument`);
  }
  return seconds * 1000;
}

function named<T>(things: readonly T[], name: string, nameOf: (thing: T) => string): T {
  const found = things.find((thing) => nameOf(thing) === name);
  if (found === undefined) {
    throw new Failure('NotFound', `thread "${name}", of ${things.map(nameOf).join(', ')}: not found`);
  }
  return found;
}

async function vars(source: DebugSource): Promise<object> {
  const memory = process.memoryUsage();
  return {
    cmdline: process.argv,
    memstats: { ...memory, uptime: process.uptime() },
    resources: process.resourceUsage(),
    plugins: await source.plugins(),
  };
}

function threadNames(): Promise<string> {
  return withThreads(async (threads) => threads.map(({ name }) => `${name}\n`).join(''));
}

function busy(plugins: readonly Plugin[]): string {
  return plugins
    .map(
      ({ id, utilization, queued, cpuMs }) =>
        `${(utilization * 100).toFixed(1).padStart(5)} % ${id}, ${queued} queued, ${cpuMs.toFixed(0)} ms CPU\n`,
    )
    .join('');
}

interface HeapUsage {
  readonly usedSize: number;
  readonly totalSize: number;
  readonly backingStorageSize: number;
}

async function heap(wanted: string | null, response: ServerResponse): Promise<void> {
  await withThreads(async (threads) => {
    if (wanted !== null) {
      await snapshot(
        named(threads, wanted, (each) => each.name),
        response,
      );
      return;
    }
    const rows = await Promise.all(
      threads.map(async (thread) => {
        try {
          const { usedSize, totalSize, backingStorageSize } = await thread.post<HeapUsage>('Runtime.getHeapUsage');
          return `${mib(usedSize)} used, ${mib(totalSize)} reserved, ${mib(backingStorageSize)} in buffers  ${thread.name}\n`;
        } catch (error) {
          return `${Failure.from(error).message}\n`;
        }
      }),
    );
    text(response, rows.join(''));
  });
}

async function snapshot(thread: InspectedThread, response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/json' });
  thread.on('HeapProfiler.addHeapSnapshotChunk', (params) => response.write((params as { chunk: string }).chunk));
  await thread.post('HeapProfiler.takeHeapSnapshot', { reportProgress: false }, snapshotMs);
  response.end();
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1).padStart(7)} MiB`;
}

function text(response: ServerResponse, body: string): void {
  response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(body);
}

function json(response: ServerResponse, body: object): void {
  const plain = JSON.stringify(body, (_key, value: unknown) => (typeof value === 'bigint' ? Number(value) : value));
  response.writeHead(200, { 'content-type': 'application/json' }).end(plain);
}
