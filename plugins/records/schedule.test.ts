import test from 'ava';
import { Schedule, type ScheduleOptions } from './schedule.ts';

/** A clock that is turned by hand, and collections that end when told. */
function useSchedule(options: Partial<ScheduleOptions> = {}) {
  let now = 0;
  let timers: { at: number; work: () => void }[] = [];
  const collections: (() => void)[] = [];
  const schedule = new Schedule(
    {
      pauseThreshold: 0.02,
      deletionThreshold: 0,
      mutationThreshold: 100,
      scheduleDelayMs: 0,
      startupDelayMs: 100,
      ...options,
    },
    () => new Promise<void>((resolve) => collections.push(resolve)),
    {
      now: () => now,
      after(delayMs, work) {
        const timer = { at: now + delayMs, work };
        timers.push(timer);
        return () => {
          timers = timers.filter((other) => other !== timer);
        };
      },
    },
  );
  return {
    schedule,
    started: () => collections.length,
    pass(ms: number) {
      now += ms;
      const due = timers.filter(({ at }) => at <= now);
      timers = timers.filter(({ at }) => at > now);
      for (const { work } of due) work();
    },
    async end(durationMs: number) {
      schedule.collected(durationMs);
      collections.at(-1)!();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test('once after the start', async (t) => {
  const { started, pass } = useSchedule();
  pass(99);
  t.is(started(), 0);
  pass(1);
  t.is(started(), 1);
});

test('after a hundred changes, if one of them removed something', async (t) => {
  const { schedule, started, pass, end } = useSchedule();
  pass(100);
  await end(0);
  schedule.changed(1000, 0);
  pass(10_000);
  t.is(started(), 1);
  schedule.changed(0, 1);
  pass(0);
  t.is(started(), 2);
});

test('after so many removals, when that is asked for', async (t) => {
  const { schedule, started, pass, end } = useSchedule({ deletionThreshold: 3, mutationThreshold: 0 });
  pass(100);
  await end(0);
  pass(1000);
  schedule.changed(2, 2);
  t.is(started(), 1);
  schedule.changed(1, 1);
  pass(0);
  t.is(started(), 2);
});

test('an interval after a removal, however few they are', async (t) => {
  const { schedule, started, pass, end } = useSchedule();
  schedule.changed(1, 1);
  pass(100);
  await end(0);
  pass(1000);
  t.is(started(), 1, 'what the first one saw');
  schedule.changed(1, 0);
  pass(1000);
  t.is(started(), 1, 'nothing was removed');
  schedule.changed(1, 1);
  pass(244);
  t.is(started(), 1);
  pass(1);
  t.is(started(), 2);
});

test('with thresholds of 0, not by itself', async (t) => {
  const { schedule, started, pass, end } = useSchedule({ mutationThreshold: 0 });
  pass(100);
  await end(0);
  schedule.changed(1000, 1000);
  pass(10_000);
  t.is(started(), 1);
});

test('no more than its share of the time', async (t) => {
  const { schedule, started, pass, end } = useSchedule();
  pass(100);
  await end(20);
  schedule.changed(100, 1);
  pass(20 / 0.02 - 20 - 1);
  t.is(started(), 1);
  pass(1);
  t.is(started(), 2);
});

test('what changes while one runs counts for the next', async (t) => {
  const { schedule, started, pass, end } = useSchedule();
  pass(100);
  schedule.changed(100, 1);
  pass(1000);
  t.is(started(), 1, 'not two at once');
  await end(0);
  pass(0);
  t.is(started(), 2);
});

test('stopped, it starts none', (t) => {
  const { schedule, started, pass } = useSchedule();
  schedule.stop();
  pass(1000);
  schedule.changed(1000, 1000);
  pass(1000);
  t.is(started(), 0);
});
