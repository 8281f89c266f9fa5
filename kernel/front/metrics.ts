/**
 * Metrics in the Prometheus format over HTTP, at /v1/metrics: containerd's names where it has them, and ours per plugin. Numbers are read when somebody scrapes.
 * Every label is ours: services and methods that are served, plugin ids, codes. What a client asked for is never one.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { Counter, Gauge, Registry } from 'prom-client';
import type { Plugin } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { GrpcHistogram } from './grpc-histogram.ts';
import type { GrpcServer } from './grpc-server.ts';
import { labelsOf } from './metric-labels.ts';
import type { MethodTable } from './methods.ts';
import { type MethodTally, unknownTally } from './tally.ts';

export interface MetricsSource {
  readonly version: string;
  readonly revision: string;
  readonly methods: MethodTable;
  readonly server: GrpcServer;
  readonly histogram: boolean;
  /** troupe.kernel.v1.Kernel/List. */
  plugins(): Promise<readonly Plugin[]>;
}

export function metricsServer(source: MetricsSource): Server {
  const registry = metricsRegistry(source);
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path !== '/v1/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(path === '/v1/metrics' ? 405 : 404).end();
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  });
  // A scraper needs one connection and a moment.
  server.maxConnections = 64;
  server.headersTimeout = 10_000;
  server.requestTimeout = 10_000;
  server.keepAliveTimeout = 75_000;
  return server;
}

export function metricsRegistry(source: MetricsSource): Registry {
  const registry = new Registry();
  const registers = [registry];
  new Counter({
    name: 'containerd_build_info_total',
    help: 'containerd build information',
    labelNames: ['version', 'revision'],
    registers,
  }).inc({ version: source.version, revision: source.revision });
  addGrpc(source, registers);
  addFront(source.server, registers);
  addProcess(registers);
  addPlugins(source, registers);
  return registry;
}

function addGrpc({ methods, histogram }: MetricsSource, registers: Registry[]): void {
  const labelNames = ['grpc_type', 'grpc_service', 'grpc_method'] as const;
  const tallies = (): MethodTally[] => [...[...methods.methods].map((method) => method.tally), unknownTally];
  const counter = (name: string, help: string, value: (tally: MethodTally) => number) =>
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const tally of tallies()) this.inc(labelsOf(tally), value(tally));
      },
    });
  counter('grpc_server_started_total', 'Calls that have begun.', (tally) => tally.started);
  counter('grpc_server_msg_received_total', 'Messages of requests.', (tally) => tally.received);
  counter('grpc_server_msg_sent_total', 'Messages of answers.', (tally) => tally.sent);
  new Counter({
    name: 'grpc_server_handled_total',
    help: 'Calls that have ended, by their code.',
    labelNames: [...labelNames, 'grpc_code'],
    registers,
    collect() {
      this.reset();
      for (const tally of tallies()) {
        this.inc({ ...labelsOf(tally), grpc_code: 'OK' }, 0);
        for (const [code, count] of tally.ended) this.inc({ ...labelsOf(tally), grpc_code: code }, count);
      }
    },
  });
  if (histogram) for (const registry of registers) registry.registerMetric(new GrpcHistogram(tallies));
}

function addFront(server: GrpcServer, registers: Registry[]): void {
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  gauge('troupe_front_connections', 'Open connections.', () => server.connections);
  gauge('troupe_front_streams', 'Open calls.', () => server.streams);
  gauge('troupe_front_memory_bytes', 'Bytes of messages in flight.', () => server.memory);
}

/** The names of the client libraries of Prometheus, for the whole process. */
function addProcess(registers: Registry[]): void {
  const started = Date.now() / 1000 - process.uptime();
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Total user and system CPU time spent in seconds.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', () => process.memoryUsage.rss());
  gauge('process_virtual_memory_bytes', 'Virtual memory size in bytes.', () => pages(0));
  gauge('process_open_fds', 'Number of open file descriptors.', () => readdirSync('/proc/self/fd').length);
  gauge('process_max_fds', 'Maximum number of open file descriptors.', maxFds);
  gauge('process_start_time_seconds', 'Start time of the process since unix epoch in seconds.', () => started);
}

function pages(field: number): number {
  return Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[field]) * 4096;
}

function maxFds(): number {
  const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return soft === undefined ? 0 : Number(soft);
}

/** One question to the kernel per scrape, whichever of these is collected first. */
function addPlugins(source: MetricsSource, registers: Registry[]): void {
  let asked: Promise<readonly Plugin[]> | undefined;
  const ask = (): Promise<readonly Plugin[]> => {
    asked ??= source
      .plugins()
      .catch(() => [])
      .finally(() => setImmediate(() => (asked = undefined)));
    return asked;
  };
  const per = (name: string, help: string, value: (plugin: Plugin) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['plugin'],
      registers,
      async collect() {
        const plugins = await ask();
        this.reset();
        for (const plugin of plugins) this.set({ plugin: plugin.id }, value(plugin));
      },
    });
  new Gauge({
    name: 'troupe_plugin_state',
    help: '1 for the state that the plugin is in.',
    labelNames: ['plugin', 'state', 'thread'],
    registers,
    async collect() {
      const plugins = await ask();
      this.reset();
      for (const { id, state, thread } of plugins) this.set({ plugin: id, state, thread }, 1);
    },
  });
  per('troupe_plugin_generation', 'Build that serves, counted from 1.', (plugin) => plugin.generation);
  per('troupe_plugin_restarts', 'Restarts that nobody asked for.', (plugin) => plugin.restarts);
  per('troupe_plugin_heap_bytes', 'Heap of its worker.', (plugin) => Number(plugin.heapBytes));
  per('troupe_plugin_external_bytes', 'Buffers of its worker outside the heap.', (plugin) =>
    Number(plugin.externalBytes),
  );
  per('troupe_plugin_cpu_seconds', 'CPU time of its worker.', (plugin) => plugin.cpuMs / 1000);
  per(
    'troupe_plugin_utilization',
    'Share of the time in which its event loop was busy.',
    (plugin) => plugin.utilization,
  );
  per('troupe_plugin_calls', 'Calls that have ended.', (plugin) => Number(plugin.calls));
  per('troupe_plugin_failures', 'Calls that have ended with an error.', (plugin) => Number(plugin.failures));
  per('troupe_plugin_queued', 'Calls received and not begun.', (plugin) => Number(plugin.queued));
  per('troupe_plugin_responsive', '1 when it answered its last heartbeat in time.', (plugin) =>
    plugin.responsive ? 1 : 0,
  );
}
