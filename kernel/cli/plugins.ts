/** `plugins …` and `config reload`: a client of troupe.kernel.v1 on the daemon's socket. */
import { writeFileSync } from 'node:fs';
import { KernelDefinition, type Transition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { typedClient } from '../front/client.ts';
import { Failure } from '../sdk/failure.ts';
import type { Client } from '../sdk/plugin.ts';
import type { PluginsInvocation } from './arguments.ts';
import { withDaemon } from './daemon-client.ts';
import { pluginTable } from './plugin-table.ts';
import type { ExitCode, Streams } from './run.ts';
import { top } from './top.ts';

export type KernelClient = Client<typeof KernelDefinition>;

const quickMs = 15_000;
/** A reload waits for a start, a config for many. */
const slowMs = 120_000;

export async function pluginsCommand(
  address: string,
  invocation: PluginsInvocation,
  streams: Streams,
): Promise<ExitCode> {
  return withKernel(address, (kernel) => act(kernel, invocation, streams));
}

export async function reloadConfig(address: string, dryRun: boolean, streams: Streams): Promise<ExitCode> {
  return withKernel(address, (kernel) => reload(kernel, dryRun, streams));
}

const withKernel = (address: string, work: (kernel: KernelClient) => Promise<ExitCode>): Promise<ExitCode> =>
  withDaemon(address, (client) => work(typedClient(client, KernelDefinition)));

async function act(kernel: KernelClient, invocation: PluginsInvocation, streams: Streams): Promise<ExitCode> {
  const { action, ids, json } = invocation;
  switch (action) {
    case 'ls': {
      const { plugins } = await kernel.list({ ids: [...ids] }, { timeoutMs: quickMs });
      streams.out(json ? jsonLine(plugins, 2) : pluginTable(plugins));
      return 0;
    }
    case 'top':
      return top(kernel, { seconds: invocation.seconds ?? 1, streams, input: process.stdin, output: process.stdout });
    case 'watch':
      for await (const transition of kernel.watch({}))
        streams.out(json ? jsonLine(transition) : transitionLine(transition));
      return 0;
    case 'plan':
      streams.out((await kernel.plan({}, { timeoutMs: quickMs })).text);
      return 0;
    case 'config-diff':
      return reload(kernel, true, streams);
    case 'profile':
      return profile(kernel, invocation, streams);
    case 'test':
      return 2;
    default: {
      // All of them, whatever comes of one.
      let code: ExitCode = 0;
      for (const id of ids) {
        try {
          const { text, done } = await change(kernel, action, id, invocation);
          streams.out(`${text}\n`);
          if (!done) code = 1;
        } catch (error) {
          streams.err(`trouped: ${action} ${id}: ${Failure.from(error).message}\n`);
          code = 1;
        }
      }
      return code;
    }
  }
}

async function change(
  kernel: KernelClient,
  action: 'reload' | 'restart' | 'stop' | 'start',
  id: string,
  { force, json }: PluginsInvocation,
): Promise<{ text: string; done: boolean }> {
  const options = { timeoutMs: slowMs };
  switch (action) {
    case 'reload': {
      const outcome = await kernel.reload({ id, force }, options);
      const done = outcome.outcome !== 'kept';
      if (json) return { text: jsonLine({ id, ...outcome }).trimEnd(), done };
      const took = `generation ${outcome.generation}, ${outcome.totalMs.toFixed(0)} ms, calls held ${outcome.holdMs.toFixed(1)} ms`;
      const why = outcome.reason === '' ? '' : `: ${outcome.reason}`;
      return { text: `${id}: ${outcome.outcome}${why} (${took})`, done };
    }
    case 'stop':
      await kernel.stop({ id }, options);
      return { text: `${id}: stopped`, done: true };
    default: {
      await kernel[action]({ id }, options);
      const { plugins } = await kernel.list({ ids: [id] }, { timeoutMs: quickMs });
      const { state = 'gone', reason = '', generation = 0 } = plugins[0] ?? {};
      const why = reason === '' ? '' : `: ${reason}`;
      return { text: `${id}: ${state}${why} (generation ${generation})`, done: state === 'ready' };
    }
  }
}

async function reload(kernel: KernelClient, dryRun: boolean, streams: Streams): Promise<ExitCode> {
  const { outcome, text } = await kernel.reloadConfig({ dryRun }, { timeoutMs: slowMs });
  streams[outcome === 'refused' ? 'err' : 'out'](text);
  return outcome === 'refused' ? 1 : 0;
}

async function profile(
  kernel: KernelClient,
  { ids, seconds = 5, output }: PluginsInvocation,
  streams: Streams,
): Promise<ExitCode> {
  const id = ids[0]!;
  const milliseconds = Math.round(seconds * 1000);
  const taken = await kernel.profile({ id, milliseconds }, { timeoutMs: milliseconds + quickMs });
  if (output === '-') {
    streams.out(Buffer.from(taken.profile).toString());
    return 0;
  }
  const file = output ?? `${id}.cpuprofile`;
  writeFileSync(file, taken.profile);
  streams.out(`${file}: ${seconds} s of ${id}, for DevTools (Performance), VS Code or speedscope\n`);
  return 0;
}

/** Numbers of 64 bits as numbers where that is exact. */
function jsonLine(value: unknown, indent?: number): string {
  const plain = (_key: string, each: unknown): unknown =>
    typeof each === 'bigint' ? (Number.isSafeInteger(Number(each)) ? Number(each) : String(each)) : each;
  return `${JSON.stringify(value, plain, indent)}\n`;
}

function transitionLine({ slot, generation, from, to, reason, at }: Transition): string {
  const ms = Number(at?.seconds ?? 0n) * 1000 + (at?.nanos ?? 0) / 1e6;
  const why = reason === '' ? '' : `: ${reason.replaceAll('\n', ' ')}`;
  return `${new Date(ms).toISOString()} ${slot} (generation ${generation}) ${from} → ${to}${why}\n`;
}
