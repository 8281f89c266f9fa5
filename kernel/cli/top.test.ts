import { EventEmitter } from 'node:events';
import test from 'ava';
import { Plugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import type { KernelClient } from './plugins.ts';
import { type Look, lines, top } from './top.ts';

function look(at: number, ...plugins: Parameters<typeof Plugin.fromPartial>[0][]): Look {
  return {
    at,
    plugins: plugins.map((each) => Plugin.fromPartial({ responsive: true, state: 'ready', ...each })),
    rssBytes: 200n << 20n,
    pid: 7n,
  };
}

const method = (calls: bigint, more = {}) => ({ method: 'a.v1.A/Get', calls, p50Ms: 0.25, p99Ms: 12, ...more });

test('rates are those of the interval, the busiest first', (t) => {
  const before = look(
    1000,
    { id: 'x.v1.quiet', generation: 1, cpuMs: 50, calls: 5n },
    { id: 'x.v1.busy', generation: 1, cpuMs: 1000, calls: 100n, methods: [method(100n)] },
  );
  const now = look(
    3000,
    { id: 'x.v1.quiet', generation: 1, cpuMs: 50, calls: 5n },
    {
      id: 'x.v1.busy',
      generation: 1,
      cpuMs: 2000,
      calls: 300n,
      utilization: 0.5,
      heapBytes: 3n << 20n,
      methods: [method(300n, { inFlight: 2n })],
    },
  );
  t.deepEqual(lines(before, now), [
    'pid 7, 200.0M resident, 2 plugins, 100.0 calls/s',
    '',
    'PLUGIN      STATE  GEN    CPU   LOOP  HEAP  CALLS/S  RUNNING  QUEUED  FAILED  RESTARTS',
    'x.v1.busy   ready    1  50.0%  50.0%  3.0M    100.0        0       0       0         0',
    'x.v1.quiet  ready    1   0.0%   0.0%  0.0M      0.0        0       0       0         0',
    '',
    'METHOD      CALLS/S     P50   P99  RUNNING  FAILED',
    'a.v1.A/Get    100.0  0.25ms  12ms        2       0',
  ]);
});

test('a generation that is new counts from nothing', (t) => {
  const before = look(0, { id: 'x.v1.a', generation: 1, cpuMs: 900, calls: 100n, methods: [method(100n)] });
  const now = look(1000, { id: 'x.v1.a', generation: 2, cpuMs: 100, calls: 4n, methods: [method(4n)] });
  t.regex(lines(before, now)[3]!, /^x\.v1\.a +ready +2 +10\.0% .* 4\.0 /);
  t.regex(lines(before, now).at(-1)!, /^a\.v1\.A\/Get +4\.0 /);
});

test('on a terminal it draws in place, within its size, and q gives the screen back', async (t) => {
  const said: string[] = [];
  const raw: boolean[] = [];
  const keyboard = Object.assign(new EventEmitter(), {
    isTTY: true,
    setRawMode: (mode: boolean) => raw.push(mode),
    unref() {},
  });
  const kernel = {
    list: async () => ({ ...look(0, { id: `x.v1.${'a'.repeat(50)}` }, { id: 'x.v1.b' }, { id: 'x.v1.c' }) }),
  } as unknown as KernelClient;
  const streams = {
    out(text: string) {
      said.push(text);
      // After the first picture.
      if (said.length === 2) keyboard.emit('data', Buffer.from('q'));
    },
    err() {},
  };
  const output = { isTTY: true as const, rows: 5, columns: 40 };
  const code = await top(kernel, { seconds: 0.01, streams, input: keyboard as never, output });
  t.is(code, 0);
  t.deepEqual(raw, [true, false]);
  t.is(said[0], '\x1b[?1049h\x1b[?25l');
  t.is(said.at(-1), '\x1b[?25h\x1b[?1049l');
  const drawn = said[1]!.split('\x1b[K\n');
  t.is(drawn.length, 5);
  for (const line of drawn) t.true(line.replaceAll(/\x1b\[\w/g, '').length <= 40, line);
  t.is(keyboard.listenerCount('data'), 0);
});
