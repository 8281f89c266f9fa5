/** What an operator sees of one call: its trace in every plugin that it comes through, and its methods' counts in the kernel's list and in the metrics. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import type { CallOptions, Client, ServiceDefinition } from '../../kernel/sdk/plugin.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { useScratch } from '../helpers/scratch.ts';
import { useClient } from '../helpers/trouped.ts';

const outer = 'example.outer.v1.Outer';
const health = 'grpc.health.v1.Health';

/** Two plugins that log what trace a call has: the first asks the second. */
const folders: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  outer: {
    'plugin.toml': `api = 1\nid = "example.outer.v1.outer"\nrequires = ["example.inner.v1.inner"]\n[serves."${outer}"]\nproto = "outer.proto"\npublic = true\n`,
    'outer.proto': `syntax = "proto3";
package example.outer.v1;
service Outer { rpc Ask(AskRequest) returns (AskResponse); }
message AskRequest { string service = 1; }
message AskResponse {}
`,
    'index.ts': `import { definePlugin } from 'troupe/plugin';
import { HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
export default definePlugin({ start(ctx) { const { log } = ctx; const inner = ctx.call(HealthDefinition, { name: 'inner' }); return { serve: { '${outer}': {
  async ask({ service }, call) { log.info('traced', { service, trace: call.trace || 'none' }); await inner.check({ service }, call); return {}; },
} } }; } });
`,
  },
  inner: {
    'plugin.toml': `api = 1\nid = "example.inner.v1.inner"\n[serves."${health}"]\nname = "inner"\n`,
    'index.ts': `import { definePlugin, Failure } from 'troupe/plugin';
export default definePlugin({ start({ log }) { return { serve: { '${health}': {
  check({ service }, call) { log.info('traced', { service, trace: call.trace || 'none' }); if (service === 'fail') throw new Failure('OutOfRange', 'as asked: out of range'); return { status: 1 }; },
  async *watch() {},
} } }; } });
`,
  },
};

interface Outer {
  ask(request: { service: string }, options?: CallOptions): Promise<object>;
}

/** A port that nobody listens on: as good as can be known of one. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test('B31 a call is one trace from its client through the front and each plugin, calls without one have none, and all are counted by method', async (t) => {
  const dir = useScratch(t, 'traced');
  for (const [name, files] of Object.entries(folders)) {
    mkdirSync(join(dir, name));
    for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, name, file), text);
  }
  const port = await freePort();
  const daemon = await useDaemon(t, {
    config: `version = 3\n[kernel]\nplugin_dirs = ["${dir}"]\n[metrics]\naddress = "127.0.0.1:${port}"\n`,
  });
  const definition = definitionFromFile(outer, join(dir, 'outer', 'outer.proto'));
  const client = useClient(t, daemon, definition) as Client<ServiceDefinition> & Outer;
  const kernel = useClient(t, daemon, KernelDefinition);
  const traceOf = (n: number): string => `00-4bf92f3577b34da6a3ce929d0e0e473${n}-00f067aa0ba902b7-01`;

  // Side by side: one's trace is never another's.
  await Promise.all([
    ...Array.from({ length: 8 }, (_, n) => client.ask({ service: `n${n}` }, { trace: traceOf(n) })),
    client.ask({ service: 'plain' }),
  ]);
  await t.throwsAsync(client.ask({ service: 'fail' }, { trace: traceOf(9) }), { message: 'as asked: out of range' });

  const expected = [
    ...Array.from({ length: 8 }, (_, n) => [`n${n}`, traceOf(n)] as const),
    ['plain', 'none'] as const,
    ['fail', traceOf(9)] as const,
  ];
  for (const plugin of ['outer', 'inner'])
    for (const [service, trace] of expected) {
      const line = await daemon.logged(
        (each) =>
          each.includes('msg=traced') &&
          each.includes(`plugin=example.${plugin}.v1.${plugin} `) &&
          each.includes(`service=${service} `),
      );
      t.regex(line, new RegExp(` trace=${trace}\\b`), plugin);
    }

  for (const [plugin, method] of [
    ['outer', `${outer}/Ask`],
    ['inner', `${health}/Check`],
  ] as const) {
    const [listed] = (await kernel.list({ ids: [`example.${plugin}.v1.${plugin}`] })).plugins;
    const stats = listed?.methods.find((each) => each.method === method);
    t.deepEqual([stats?.calls, stats?.failures, stats?.inFlight], [10n, 1n, 0n], method);
  }
  const metrics = await (await fetch(`http://127.0.0.1:${port}/v1/metrics`)).text();
  const labels = 'grpc_type="unary",grpc_service="example.outer.v1.Outer",grpc_method="Ask"';
  for (const line of [
    `grpc_server_started_total{${labels}} 10`,
    `grpc_server_handled_total{${labels},grpc_code="OK"} 9`,
    `grpc_server_handled_total{${labels},grpc_code="OutOfRange"} 1`,
  ])
    t.true(metrics.split('\n').includes(line), `${line}\n${metrics.replace(/^(?!.*Outer).*$\n/gm, '')}`);
  for (const plugin of ['outer', 'inner'])
    t.regex(metrics, new RegExp(`^troupe_plugin_calls\\{[^}]*example\\.${plugin}\\.v1\\.${plugin}[^}]*\\} 10$`, 'm'));
});
