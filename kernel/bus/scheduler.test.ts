/** B25 and B26: what goes first, and that nobody starves. Counted in steps, not in time. */
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { type Priority, priority } from './frames.ts';
import { Scheduler } from './scheduler.ts';

function frames(name: string, count: number, order: string[]) {
  let left = count;
  return {
    step() {
      left -= 1;
      order.push(name);
    },
    get done() {
      return left === 0;
    },
  };
}

async function all(scheduler: Scheduler): Promise<void> {
  while (scheduler.depth > 0) await setImmediate();
}

test('B25 control goes first, and of the others eight go for one that is bulk', async (t) => {
  const scheduler = new Scheduler();
  const order: string[] = [];
  const push = (name: string, at: Priority, count: number) => scheduler.push(frames(name, count, order), at);
  push('bulk', priority.bulk, 100);
  push('call', priority.interactive, 80);
  push('control', priority.control, 5);
  await all(scheduler);
  t.deepEqual(order.slice(0, 5), new Array(5).fill('control'));
  const calls = order.slice(5, order.lastIndexOf('call') + 1);
  for (let from = 0; from + 9 <= calls.length; from += 9) {
    const bulk = calls.slice(from, from + 9).filter((each) => each === 'bulk').length;
    t.is(bulk, 1, calls.slice(from, from + 9).join(' '));
  }
  t.is(order.length, 185);
});

test('B25 without calls bulk has all the time that there is, and calls that come do not wait for its end', async (t) => {
  const scheduler = new Scheduler();
  const order: string[] = [];
  scheduler.push(frames('bulk', 5000, order), priority.bulk);
  // Bulk that is under way is interrupted after a turn.
  while (order.length === 0) await setImmediate();
  const before = order.length;
  t.true(before < 5000, 'one turn has done all');
  scheduler.push(frames('call', 1, order), priority.interactive);
  await all(scheduler);
  t.true(order.indexOf('call') <= before + 1, `the call came after ${order.indexOf('call') - before} of bulk`);
});

test('B26 a handler that is handed a frame runs outside of the port, and others get their turn in between', async (t) => {
  const scheduler = new Scheduler();
  const order: string[] = [];
  scheduler.push(frames('frame', 2000, order), priority.interactive);
  t.is(order.length, 0, 'it ran inside of push');
  let turns = 0;
  while (scheduler.depth > 0) {
    await setImmediate();
    turns += 1;
  }
  t.true(turns >= 4, `2000 frames in ${turns} turns of the loop`);
  t.is(order.length, 2000);
});
