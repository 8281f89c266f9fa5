/** The plugin as the kernel runs it: its sockets by config, ttrpc, metrics and the debug socket; taking over from a predecessor. */
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { PluginInstance } from '../sdk/plugin.ts';
import { TtrpcClient } from '../ttrpc/index.ts';
import type { FrontConfig } from './config.ts';
import front from './index.ts';
import { call, greeting, RawPeer } from './raw-peer.ts';
import { openRig, type Rig, rigLimits, until } from './rig.ts';

const nowhere = { address: '', uid: -1, gid: -1 };
const plugin = {
  id: 'test.v1.echo',
  thread: 'main',
  state: 'ready',
  generation: 3,
  restarts: 2,
  heapBytes: 1000n,
  externalBytes: 0n,
  cpuMs: 1500,
  utilization: 0.5,
  calls: 7n,
  failures: 0n,
  queued: 0n,
  responsive: true,
};

interface Ran {
  readonly rig: Rig;
  readonly dir: string;
  readonly instance: PluginInstance<FrontConfig>;
  readonly warnings: string[];
  start(config?: Partial<FrontConfig>): Promise<PluginInstance<FrontConfig>>;
}

/** The plugin on the rig's router, with sockets in a directory of its own. */
async function run(t: ExecutionContext, config: Partial<FrontConfig> = {}): Promise<Ran> {
  const rig = await openRig();
  const dir = mkdtempSync(join(tmpdir(), 'front-'));
  t.teardown(async () => {
    rmSync(dir, { recursive: true });
    await rig.close();
  });
  const warnings: string[] = [];
  const note = (message: string, fields?: object) => void warnings.push(`${message} ${JSON.stringify(fields ?? {})}`);
  const start = async (changed: Partial<FrontConfig> = {}) => {
    const complete: FrontConfig = {
      grpc: { ...nowhere, address: join(dir, 'grpc.sock') },
      tcp: { address: '', cert: '', key: '', ca: '', commonName: '', insecure: false },
      ttrpc: nowhere,
      debug: nowhere,
      metrics: { address: '', grpcHistogram: false },
      limits: rigLimits,
      ...config,
      ...changed,
    };
    const kernel = { list: async () => ({ plugins: [plugin] }), dump: async () => ({ text: 'all threads are well' }) };
    const instance = await front.start({
      config: complete,
      router: rig.router,
      drain: () => {},
      daemon: { version: '1.2.3', revision: 'abc' },
      log: { debug: () => {}, info: note, warn: note, error: note },
      call: () => kernel,
    } as never);
    t.teardown(() => instance.stop?.());
    return instance as PluginInstance<FrontConfig>;
  };
  return { rig, dir, instance: await start(), warnings, start };
}

async function unaryOver(socket: Socket): Promise<string> {
  const peer = new RawPeer(socket);
  peer.send(greeting, call(1, 'Unary', Buffer.from('hello')));
  const ends = await peer.ends();
  socket.destroy();
  return ends;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function get(
  where: { socketPath: string } | { port: number },
  path: string,
): Promise<{ status: number; type: string; body: string }> {
  return new Promise((resolve, reject) => {
    request({ ...where, host: '127.0.0.1', path, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          type: response.headers['content-type'] ?? '',
          body: Buffer.concat(chunks).toString(),
        }),
      );
    })
      .on('error', reject)
      .end();
  });
}

test.serial('the unix socket: mode, calls, and nothing left when it stops', async (t) => {
  const { instance, dir } = await run(t);
  await instance.activate?.(undefined);
  const path = join(dir, 'grpc.sock');
  t.is(statSync(path).mode & 0o777, 0o660);
  t.is(await unaryOver(connectTcp(path)), 'status 0');
  await instance.stop?.();
  t.deepEqual(readdirSync(dir), []);
});

test.serial(
  'a path that is in use, is too long, or holds something else is refused by name, and all that was open is closed',
  async (t) => {
    const { start, dir, instance } = await run(t);
    await instance.activate?.(undefined);
    const path = join(dir, 'grpc.sock');
    const second = await start({ ttrpc: { ...nowhere, address: join(dir, 'ttrpc.sock') } });
    const inUse = await t.throwsAsync(async () => second.activate?.(undefined));
    t.regex(inUse!.message, /EADDRINUSE.*grpc\.sock/);
    t.deepEqual(readdirSync(dir), ['grpc.sock']);
    t.is(await unaryOver(connectTcp(path)), 'status 0');

    const long = await start({ grpc: { ...nowhere, address: join(dir, 'x'.repeat(100)) } });
    t.regex((await t.throwsAsync(async () => long.activate?.(undefined)))!.message, /ENAMETOOLONG.*xxx/);

    writeFileSync(join(dir, 'precious'), 'data');
    const file = await start({ grpc: { ...nowhere, address: join(dir, 'precious') } });
    t.regex((await t.throwsAsync(async () => file.activate?.(undefined)))!.message, /EEXIST.*precious/);
    t.true(statSync(join(dir, 'precious')).isFile());
  },
);

test.serial(
  'B20 the next generation takes the socket over without a refused connection, and a failed one leaves it',
  async (t) => {
    const port = await freePort();
    const { start, dir, instance } = await run(t, { metrics: { address: `127.0.0.1:${port}`, grpcHistogram: false } });
    await instance.activate?.(undefined);
    const path = join(dir, 'grpc.sock');
    let refused = 0;
    let served = 0;
    let going = true;
    const clients = (async () => {
      while (going) {
        if ((await unaryOver(connectTcp(path))) === 'status 0') served += 1;
        else refused += 1;
      }
    })();
    await until(() => served > 3, 'calls are served');
    const next = await start();
    const state = await instance.suspend?.();
    t.deepEqual(state, { listening: true });
    await next.activate?.(state as never);
    const before = served;
    await until(() => served > before + 3, 'calls are served by the next');
    await instance.stop?.();
    const after = served;
    await until(() => served > after + 3, 'the next goes on when the first has stopped');
    t.is((await get({ port }, '/v1/metrics')).status, 200);

    // Suspended and called back, as when its successor fails.
    await next.suspend?.();
    await next.activate?.(undefined);
    t.is((await get({ port }, '/v1/metrics')).status, 200);
    going = false;
    await clients;
    t.is(refused, 0);
  },
);

test.serial('metrics: containerd names, histograms, plugins, and no label of a client', async (t) => {
  const port = await freePort();
  const { instance, dir } = await run(t, { metrics: { address: `127.0.0.1:${port}`, grpcHistogram: true } });
  await instance.activate?.(undefined);
  const peer = new RawPeer(connectTcp(join(dir, 'grpc.sock')));
  peer.send(
    greeting,
    call(1, 'Unary'),
    call(3, 'Fail', Buffer.from('{"code":"NotFound","message":"x"}')),
    call(5, 'Nothing'),
    call(7, `Unary${'x'.repeat(50)}`),
  );
  t.is(await peer.ends(7), 'status 12');
  await until(() => peer.outcome(3) !== undefined && peer.outcome(1) !== undefined, 'all are answered');
  peer.socket.destroy();
  const { body, status, type } = await get({ port }, '/v1/metrics');
  t.is(status, 200);
  t.regex(type, /^text\/plain/);
  for (const line of [
    'containerd_build_info_total{version="1.2.3",revision="abc"} 1',
    'grpc_server_handled_total{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Unary",grpc_code="OK"} 1',
    'grpc_server_handled_total{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Fail",grpc_code="NotFound"} 1',
    'grpc_server_started_total{grpc_type="bidi_stream",grpc_service="test.v1.Echo",grpc_method="Both"} 0',
    'grpc_server_msg_received_total{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Unary"} 1',
    'grpc_server_msg_sent_total{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Unary"} 1',
    'grpc_server_handling_seconds_count{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Unary"} 1',
    'grpc_server_handling_seconds_bucket{grpc_type="unary",grpc_service="test.v1.Echo",grpc_method="Unary",le="+Inf"} 1',
    'troupe_plugin_generation{plugin="test.v1.echo"} 3',
    'troupe_plugin_state{plugin="test.v1.echo",state="ready",thread="main"} 1',
    'troupe_plugin_cpu_seconds{plugin="test.v1.echo"} 1.5',
  ]) {
    t.true(body.includes(line), line);
  }
  t.regex(body, /grpc_method="unknown",grpc_code="Unimplemented"} \d/);
  t.false(body.includes('Nothing') || body.includes('Unaryxxx'));
  t.regex(body, /process_open_fds \d+\n/);
  t.is((await get({ port }, '/')).status, 404);
});

test.serial('the debug socket answers what ctr pprof asks', async (t) => {
  const debug = { ...nowhere, address: '' };
  const { start, dir } = await run(t);
  debug.address = join(dir, 'debug.sock');
  const instance = await start({ debug });
  await instance.activate?.(undefined);
  t.is(statSync(debug.address).mode & 0o777, 0o660);
  const ask = (path: string) => get({ socketPath: debug.address }, path);
  t.is((await ask('/debug/pprof/goroutine?debug=2')).body, 'all threads are well\n');
  t.regex((await ask('/debug/pprof/')).body, /profile/);
  t.is(JSON.parse((await ask('/debug/vars')).body).plugins[0].heapBytes, 1000);
  t.regex((await ask('/debug/pprof/block')).body, /50\.0 % test\.v1\.echo/);
  t.is((await ask('/debug/pprof/nothing')).status, 404);
  t.is((await ask('/debug/pprof/profile?seconds=x')).status, 400);
  t.is((await ask('/debug/pprof/profile?seconds=100000')).status, 400);
});

test.serial('ttrpc: only the events of shims, for our own user, as bytes', async (t) => {
  const { start, dir, rig } = await run(t);
  const address = join(dir, 'ttrpc.sock');
  const contract = 'containerd.services.events.ttrpc.v1.Events';
  rig.router.setRoutes({ [contract]: [{ slot: 'test.v1.echo', name: '', public: true, methods: {}, shapes: [] }] });
  const instance = await start({ ttrpc: { ...nowhere, address } });
  await instance.activate?.(undefined);
  const client = new TtrpcClient(connectTcp(address));
  const unserved = await t.throwsAsync(client.call(contract, 'Publish', Buffer.alloc(0), { timeout: 5000 } as never));
  t.is((unserved as { code?: string }).code, 'Unimplemented');
  const other = await t.throwsAsync(
    client.call('containerd.task.v2.Task', 'State', Buffer.alloc(0), { timeout: 5000 } as never),
  );
  t.is((other as { code?: string }).code, 'Unimplemented');
  // The rig's plugin does not know the method, and that is what comes back: the call has been on the bus.
  const forwarded = await t.throwsAsync(
    client.call(contract, 'Forward', Buffer.from([0xff, 0xff]), { timeout: 5000 } as never),
  );
  t.regex(forwarded!.message, /Events\/Forward/);
  client.close();
});

test.serial('TCP without certificates is refused, or warned about when the config insists', async (t) => {
  const { start, dir, warnings } = await run(t);
  const port = await freePort();
  const none = { address: `127.0.0.1:${port}`, cert: '', key: '', ca: '', commonName: '', insecure: false };
  const refused = await start({ tcp: none });
  t.regex(
    (await t.throwsAsync(async () => refused.activate?.(undefined)))!.message,
    /tcp_tls_cert, grpc\.tcp_tls_key, grpc\.tcp_tls_ca.*failed precondition/,
  );
  t.false(readdirSync(dir).includes('grpc.sock'));
  const insisted = await start({ tcp: { ...none, insecure: true } });
  await insisted.activate?.(undefined);
  t.true(warnings.some((line) => line.includes('whoever can connect is root')));
  t.is(await unaryOver(connectTcp(port, '127.0.0.1')), 'status 0');
});
