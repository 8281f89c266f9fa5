import test from 'ava';
import { OpenCalls } from './open-calls.ts';

const holds = test.macro((t, shift: number) => {
  const calls = new OpenCalls<{ id: number }>(shift);
  const model = new Map<number, { id: number }>();
  // The same run each time: xorshift.
  let state = 0x2545f491;
  const random = (below: number) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  let next = 1;
  // Crowds that come and go, with some that stay through all of them.
  for (const crowd of [3, 40, 5000, 1, 600, 9000, 2]) {
    for (let step = 0; step < 12_000; step++) {
      if (model.size < crowd || random(3) === 0) {
        const call = { id: next };
        next += 1 << shift;
        calls.add(call);
        model.set(call.id, call);
      }
      const made = (next - 1) >> shift;
      const id = 1 + ((random(50) === 0 ? random(made) : Math.max(0, made - random(crowd + 3))) << shift);
      t.is(calls.get(id), model.get(id));
      if ((id >> shift) % 97 !== 0 || crowd === 2) t.is(calls.delete(id), model.delete(id));
    }
    t.is(calls.size, model.size);
    t.deepEqual(calls.values(), [...model.values()]);
  }
  t.true(model.size > 100);
  calls.clear();
  t.is(calls.size, 0);
  t.deepEqual(calls.values(), []);
  t.is(calls.get(next - (1 << shift)), undefined);
});

test('whatever opens and ends in whatever order, it holds what a Map would', holds, 0);
test('so it does with odd numbers', holds, 1);

test('a number that comes again is the later call', (t) => {
  const calls = new OpenCalls<{ id: number; name: string }>();
  for (const name of ['one', 'two']) calls.add({ id: 7, name });
  t.is(calls.get(7)?.name, 'two');
  t.is(calls.size, 1);
  t.true(calls.delete(7));
  t.false(calls.delete(7));
});
