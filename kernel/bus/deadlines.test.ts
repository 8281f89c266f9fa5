import test from 'ava';
import { Deadlines } from './deadlines.ts';

function clock() {
  let now = 1e12;
  const deadlines = new Deadlines(() => now);
  const expired: string[] = [];
  return {
    deadlines,
    expired,
    entry(name: string, ms: number, expire = () => {}) {
      const entry = {
        due: -1,
        place: 0,
        expire: () => {
          expired.push(name);
          expire();
        },
      };
      deadlines.add(entry, now + ms);
      return entry;
    },
    pass(ms: number) {
      now += ms;
      deadlines.sweep();
    },
  };
}

test('what is due expires once, late rather than early, and what was taken out does not', (t) => {
  const { deadlines, expired, entry, pass } = clock();
  const entries = ['a', 'b', 'c', 'd'].map((name) => entry(name, 25));
  entry('later', 45);
  const gone = entry('gone', 45);
  deadlines.delete(entries[1]!);
  deadlines.delete(entries[1]!);
  deadlines.delete(gone);
  t.is(deadlines.size, 4);
  pass(20);
  t.deepEqual(expired, []);
  pass(10);
  t.deepEqual(expired.sort(), ['a', 'c', 'd']);
  for (const each of entries) deadlines.delete(each);
  t.is(deadlines.size, 1);
  pass(20);
  t.deepEqual(expired, ['a', 'c', 'd', 'later']);
  t.is(deadlines.size, 0);
});

test('a deadline that has passed expires at the next tick, and can be taken out before', (t) => {
  const { deadlines, expired, entry, pass } = clock();
  // The first starts the clock.
  entry('first', 1000);
  pass(10);
  entry('past', -5000);
  deadlines.delete(entry('past as well', -5000));
  t.is(deadlines.size, 2);
  pass(10);
  t.deepEqual(expired, ['past']);
});

test('entries that others take out or put in as they expire', (t) => {
  const { deadlines, expired, entry, pass } = clock();
  const other = entry('other', 100);
  const first = entry('first', 15, () => {
    deadlines.delete(first);
    deadlines.delete(other);
    entry('new', 15);
  });
  pass(20);
  t.deepEqual(expired, ['first']);
  t.is(deadlines.size, 1);
  pass(200);
  t.deepEqual(expired, ['first', 'new']);
  t.is(deadlines.size, 0);
});

test('a clock that jumps expires all that lies between', (t) => {
  const { deadlines, expired, entry, pass } = clock();
  entry('soon', 50);
  entry('in a minute', 60_000);
  entry('in a day', 86_400_000);
  pass(3_600_000);
  t.deepEqual(expired, ['soon', 'in a minute']);
  t.is(deadlines.size, 1);
  pass(86_400_000);
  t.is(deadlines.size, 0);
});
