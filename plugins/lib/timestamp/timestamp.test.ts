import test from 'ava';
import { formatRfc3339, fromNanoseconds, now, nowNanoseconds, toNanoseconds } from './timestamp.ts';

test('lies between two readings of the wall clock', (t) => {
  for (let count = 0; count < 10_000; count++) {
    const before = Date.now();
    const { seconds, nanos } = now();
    const after = Date.now();
    const milliseconds = Number(seconds) * 1000 + nanos / 1e6;
    // A fifth of a millisecond is what a preempted calibration may be wrong by.
    t.true(milliseconds >= before - 0.2 && milliseconds <= after + 1.2, `${before} ${milliseconds} ${after}`);
  }
});

test('never twice the same', (t) => {
  let last = 0n;
  for (let count = 0; count < 10_000; count++) {
    const next = nowNanoseconds();
    t.true(next > last);
    last = next;
  }
});

test('converts both ways, also before the epoch', (t) => {
  t.deepEqual(fromNanoseconds(-1n), { seconds: -1n, nanos: 999_999_999 });
  for (const value of [0n, 1n, -1n, 1_700_000_000_123_456_789n]) t.is(toNanoseconds(fromNanoseconds(value)), value);
  t.is(toNanoseconds(undefined), 0n);
});

test('RFC 3339 keeps the digits there are', (t) => {
  t.is(formatRfc3339(1_700_000_000_120_000_000n), '2023-11-14T22:13:20.12Z');
  t.is(formatRfc3339(1_700_000_000_000_000_000n), '2023-11-14T22:13:20Z');
});
