/** When the main thread is taken for dead, and above all when it is not: it is the daemon's end. Its beats, and time, are the test's. */
import test from 'ava';
import { beatMs, ControlPage, pageBytes } from './control-page.ts';
import { KernelWatch, type ThreadSample } from './kernel-watch.ts';

const limitMs = 4000;

/** A watch, and a main thread that has begun: each `turn` is one beat of the worker, in which the main thread did `what`. */
function useWatch(limit = limitMs) {
  const memory = new SharedArrayBuffer(pageBytes);
  const page = new ControlPage(memory);
  const ended: string[] = [];
  let now = 1_000_000;
  let sample: ThreadSample = { cpuMs: 0, waits: true };
  const watch = new KernelWatch(
    memory,
    limit,
    () => sample,
    (reason) => ended.push(reason),
  );
  const turn = (what: { beats?: boolean; cpuMs?: number; waits?: boolean; ms?: number } = {}) => {
    const { beats = false, cpuMs = 0, waits = true, ms = beatMs } = what;
    now += ms;
    sample = { cpuMs: sample.cpuMs + cpuMs, waits };
    if (beats) page.turned();
    watch.tick(now);
  };
  turn({ beats: true });
  return { page, ended, turn, now: () => now };
}

const times = (count: number, work: () => void): void => {
  for (let each = 0; each < count; each++) work();
};

test('F8 one that computes and never comes to rest has the daemon ended, at the limit and not before', (t) => {
  const { ended, turn } = useWatch();
  times(limitMs / beatMs - 1, () => turn({ cpuMs: 0.9 * beatMs, waits: false }));
  t.deepEqual(ended, []);
  turn({ cpuMs: 0.9 * beatMs, waits: false });
  t.deepEqual(ended, [`has not come to rest for ${limitMs} ms`]);
});

test('F8 one that waits in one call all the time has the daemon ended', (t) => {
  const { ended, turn } = useWatch();
  times(limitMs / beatMs, () => turn());
  t.deepEqual(ended, [`has waited in a call for ${limitMs} ms`]);
});

test('F8 one that stalls for less, however often, is waited for', (t) => {
  const { ended, turn } = useWatch();
  times(5, () => {
    times(limitMs / beatMs - 1, () => turn());
    turn({ beats: true });
    times(limitMs / beatMs - 1, () => turn({ cpuMs: beatMs, waits: false }));
    turn({ beats: true });
  });
  t.deepEqual(ended, []);
});

test('F8 time in which the worker itself stood still, in a stopped process or on a machine that slept, proves nothing', (t) => {
  const { ended, turn } = useWatch();
  times(5, () => turn());
  turn({ ms: 3_600_000 });
  turn();
  t.deepEqual(ended, []);
  times(limitMs / beatMs, () => turn());
  t.is(ended.length > 0, true);
});

test('F8 one that wants a processor and gets little of it is not taken for hanging', (t) => {
  const { ended, turn } = useWatch();
  times((3 * limitMs) / beatMs, () => turn({ cpuMs: 0.2 * beatMs, waits: false }));
  t.deepEqual(ended, []);
});

test('F8 one that says it is in a system call is left alone until the time that it has promised', (t) => {
  const { page, ended, turn, now } = useWatch();
  const lag = now() - Date.now();
  page.busy('writing the log', 2 * limitMs + lag, () => {
    times((2 * limitMs) / beatMs - 2, () => turn());
    t.deepEqual(ended, []);
    times((2 * limitMs) / beatMs, () => turn());
    t.is(ended.length > 0, true);
  });
});

test('F8 one that has not begun, and one that nobody is to watch, are not watched', (t) => {
  const memory = new SharedArrayBuffer(pageBytes);
  const ended: string[] = [];
  const loading = new KernelWatch(
    memory,
    limitMs,
    () => ({ cpuMs: 0, waits: true }),
    (reason) => ended.push(reason),
  );
  times(1000, () => loading.tick(1_000_000));
  const { ended: unwatched, turn } = useWatch(0);
  times(1000, () => turn());
  t.deepEqual([ended, unwatched], [[], []]);
});
