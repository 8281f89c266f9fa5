/** `plugins top`: the list again and again, with what happened in between. A screen of its own on a terminal, plain lines elsewhere. */
import type { ReadStream, WriteStream } from 'node:tty';
import type { Plugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { mebibytes, percent, table } from './plugin-table.ts';
import type { KernelClient } from './plugins.ts';
import type { ExitCode, Streams } from './run.ts';

/** One look at the daemon. */
export interface Look {
  readonly at: number;
  readonly plugins: readonly Plugin[];
  readonly rssBytes: bigint;
  readonly pid: bigint;
}

export interface TopOptions {
  readonly seconds: number;
  readonly streams: Streams;
  readonly input: Pick<ReadStream, 'isTTY' | 'setRawMode' | 'on' | 'off' | 'unref'>;
  readonly output: Pick<WriteStream, 'isTTY' | 'rows' | 'columns'>;
}

const alternateScreen = '\x1b[?1049h\x1b[?25l';
const mainScreen = '\x1b[?25h\x1b[?1049l';
const home = '\x1b[H';
const clearLine = '\x1b[K';
const clearBelow = '\x1b[J';

/** Until q, Ctrl-C or the daemon's end. */
export async function top(kernel: KernelClient, { seconds, streams, input, output }: TopOptions): Promise<ExitCode> {
  const stopped = Promise.withResolvers<void>();
  let done = false;
  const stop = (): void => {
    done = true;
    stopped.resolve();
  };
  const key = (bytes: Buffer): void => {
    if (['q', 'Q', '\x03', '\x04', '\x1b'].includes(bytes.toString())) stop();
  };
  const screen = output.isTTY === true;
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  if (input.isTTY) {
    input.setRawMode(true);
    input.on('data', key);
  }
  if (screen) streams.out(alternateScreen);
  try {
    let before = await look(kernel);
    while (!done) {
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        stopped.promise,
        new Promise((resolve) => {
          timer = setTimeout(resolve, seconds * 1000);
        }),
      ]);
      clearTimeout(timer);
      if (done) break;
      const now = await look(kernel);
      streams.out(screen ? drawn(before, now, output.rows, output.columns) : `${lines(before, now).join('\n')}\n\n`);
      before = now;
    }
    return 0;
  } finally {
    if (screen) streams.out(mainScreen);
    if (input.isTTY) {
      input.setRawMode(false);
      input.off('data', key);
      input.unref();
    }
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

async function look(kernel: KernelClient): Promise<Look> {
  const { plugins, rssBytes, pid } = await kernel.list({ ids: [] }, { timeoutMs: 15_000 });
  return { at: performance.now(), plugins, rssBytes, pid };
}

/** Over what was there, without a flicker; what does not fit is cut. */
function drawn(before: Look, now: Look, rows: number, columns: number): string {
  const fitting = lines(before, now).slice(0, rows - 1);
  return `${home}${fitting.map((line) => `${line.slice(0, columns)}${clearLine}\n`).join('')}${clearBelow}`;
}

/** Plugins, then the methods that were called in between, the busiest first. */
export function lines(before: Look, now: Look): string[] {
  const elapsed = (now.at - before.at) / 1000;
  const earlier = new Map(before.plugins.map((plugin) => [plugin.id, plugin]));
  const totals = now.plugins.map((plugin) => {
    const was = earlier.get(plugin.id);
    return {
      plugin,
      cpuMs: since(plugin, was, (each) => each.cpuMs),
      calls: since(plugin, was, (each) => Number(each.calls)),
    };
  });
  const busiest = totals.toSorted((a, b) => b.cpuMs - a.cpuMs || a.plugin.id.localeCompare(b.plugin.id));
  const sum = totals.reduce((all, { calls }) => all + calls, 0);
  return [
    `pid ${now.pid}, ${mebibytes(now.rssBytes)} resident, ${now.plugins.length} plugins, ${rate(sum, elapsed)} calls/s`,
    '',
    ...table(
      [
        ['PLUGIN', 'STATE', 'GEN', 'CPU', 'LOOP', 'HEAP', 'CALLS/S', 'RUNNING', 'QUEUED', 'FAILED', 'RESTARTS'],
        ...busiest.map(({ plugin, cpuMs, calls }) => [
          plugin.id,
          plugin.responsive ? plugin.state : 'hangs',
          String(plugin.generation),
          percent(cpuMs / 1000 / elapsed),
          percent(plugin.utilization),
          mebibytes(plugin.heapBytes),
          rate(calls, elapsed),
          String(plugin.running),
          String(plugin.queued),
          String(plugin.failures),
          String(plugin.restarts),
        ]),
      ],
      2,
    ).split('\n'),
    ...methodLines(earlier, now, elapsed),
  ];
}

function methodLines(earlier: ReadonlyMap<string, Plugin>, now: Look, elapsed: number): string[] {
  const called = now.plugins
    .flatMap((plugin) => {
      const was = earlier.get(plugin.id);
      const known = new Map(
        was?.generation === plugin.generation ? was.methods.map((each) => [each.method, each.calls]) : [],
      );
      return plugin.methods.map((method) => ({
        method,
        calls: Number(method.calls - (known.get(method.method) ?? 0n)),
      }));
    })
    .filter(({ calls, method }) => calls > 0 || method.inFlight > 0n)
    .sort((a, b) => b.calls - a.calls);
  if (called.length === 0) return [];
  const rows = called.map(({ method, calls }) => [
    method.method,
    rate(calls, elapsed),
    milliseconds(method.p50Ms),
    milliseconds(method.p99Ms),
    String(method.inFlight),
    String(method.failures),
  ]);
  return ['', ...table([['METHOD', 'CALLS/S', 'P50', 'P99', 'RUNNING', 'FAILED'], ...rows], 1).split('\n')];
}

/** Counters are a generation's: of a new one all of it is new. */
function since(plugin: Plugin, was: Plugin | undefined, count: (plugin: Plugin) => number): number {
  return count(plugin) - (was?.generation === plugin.generation ? count(was) : 0);
}

function rate(count: number, elapsed: number): string {
  return (count / elapsed).toFixed(1);
}

function milliseconds(ms: number): string {
  return `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)}ms`;
}
