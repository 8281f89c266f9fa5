import test from 'ava';
import { formatDuration, parseDuration, parseSize } from './quantity.ts';

test('durations as Go reads them', (t) => {
  const good: [string, number][] = [
    ['0', 0],
    ['-0', 0],
    ['10s', 10_000],
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['4h0m0s', 14_400_000],
    ['100ms', 100],
    ['1us', 0.001],
    ['1µs', 0.001],
    ['.5s', 500],
    ['1.s', 1000],
    ['-1s', -1000],
    ['+1s', 1000],
  ];
  for (const [text, ms] of good) t.is(parseDuration(text), ms, text);
  for (const text of [
    '',
    '5',
    '5parsecs',
    's',
    '1 s',
    '1s ',
    '1m30',
    '1e3s',
    '--1s',
    '1S',
    'Infinitys',
    '99999999999999999999h',
  ]) {
    t.is(parseDuration(text), undefined, text);
  }
});

test('what is formatted is read back', (t) => {
  for (const ms of [0, 1, 250, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 3_661_000, 0.5, 86_400_000, -1500]) {
    t.is(parseDuration(formatDuration(ms)), ms, formatDuration(ms));
  }
  t.is(formatDuration(90_000), '1m30s');
});

test('sizes', (t) => {
  const good: [string, number][] = [
    ['0', 0],
    ['512', 512],
    ['512B', 512],
    ['16MiB', 16 << 20],
    ['16MB', 16 << 20],
    ['64k', 65_536],
    ['1.5 GiB', 1_610_612_736],
  ];
  for (const [text, bytes] of good) t.is(parseSize(text), bytes, text);
  for (const text of ['', '-1', '1 lightyear', '1.3', '1e9', '0x10', '99999999TiB', 'MiB'])
    t.is(parseSize(text), undefined, text);
});
