/** B8, B11 and B12 with workers that are objects: who is told of a death, what counts as hanging, what is ended for its memory. */
import test from 'ava';
import type { MessagePort } from 'node:worker_threads';
import { ControlPage } from '../sdk/control-page.ts';
import { dice, type FakeWorker, manifest, settled, turnUntil, useFakes } from './fake-workers.ts';
import { Links, type Party } from './links.ts';
import { intervalOf } from './memory-watch.ts';
import { Watch } from './watch.ts';

class Caller implements Party {
  readonly id: string;
  gone = false;
  readonly heard: string[] = [];

  constructor(id: string) {
    this.id = id;
  }

  accept(_from: string, port: MessagePort): void {
    port.close();
  }

  relink(_slot: string, generation: number, port: MessagePort): void {
    port.close();
    this.heard.push(`link ${generation}`);
  }

  get links(): number {
    return this.heard.filter((each) => each.startsWith('link ')).length;
  }

  died(_slot: string, generation: number): void {
    this.heard.push(`died ${generation}`);
  }

  down(_slot: string, reason: string): void {
    this.heard.push(`down ${reason}`);
  }
}

test('B8 whoever holds a link hears of the death once, whether it asked before, meanwhile or afterwards', (t) => {
  const random = dice(3);
  for (let round = 0; round < 1000; round++) {
    const links = new Links();
    const callers = Array.from({ length: 6 }, (_, index) => new Caller(`c${index}`));
    const provider = new Caller('p');
    // Each asks at one of the moments, or at several.
    const ask = () => {
      for (const caller of callers) if (random() < 0.4) links.introduce(caller, 'slot', caller.links);
    };
    ask();
    links.serving('slot', provider, 1);
    ask();
    provider.gone = true;
    ask();
    links.died('slot', 1);
    links.died('slot', 1);
    ask();
    links.interrupted('slot');
    ask();
    links.ended('slot', 'it has failed');
    ask();
    for (const { heard } of callers) {
      t.is(heard.filter((each) => each === 'died 1').length, heard.includes('link 1') ? 1 : 0, heard.join(', '));
      if (heard.includes('died 1')) t.true(heard.lastIndexOf('link 1') < heard.indexOf('died 1'), heard.join(', '));
    }
    // Nobody is left waiting for what has ended.
    const late = new Caller('late');
    links.introduce(late, 'slot', 0);
    t.deepEqual(late.heard, ['down it has failed']);
  }
});

test('B29 a caller whose new link is on its way is not given another one: two would not keep its calls in order', (t) => {
  const links = new Links();
  const [caller, provider] = [new Caller('c'), new Caller('p')];
  links.introduce(caller, 'slot', 0);
  links.serving('slot', provider, 1);
  links.serving('slot', provider, 2);
  // Refused by the first, and asked before the link to the second arrived.
  links.introduce(caller, 'slot', 1);
  t.deepEqual(caller.heard, ['link 1', 'link 2']);
  // One that lost that link as well has nothing to wait for.
  links.introduce(caller, 'slot', 2);
  t.deepEqual(caller.heard, ['link 1', 'link 2', 'link 2']);
});

const limits = { unresponsiveMs: 1000, killMs: 10_000 };

async function beating(clock: { advance(ms: number): Promise<void> }, worker: FakeWorker, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    worker.beat();
    await clock.advance(100);
  }
}

test('B11 a worker whose loop stands still is told of after a second, and ended after ten', async (t) => {
  const { supervisor, clock, incidents, worker } = useFakes(t, [manifest('a.v1.stuck')], undefined, limits);
  await supervisor.boot();
  const stuck = worker('a.v1.stuck');
  await beating(clock, stuck, 1000);
  await clock.advance(900);
  t.deepEqual(incidents, []);
  t.true(supervisor.responsive(stuck));
  await clock.advance(600);
  t.false(supervisor.responsive(stuck));
  // Its hot frames are looked for in real time.
  while (incidents.length === 0) await settled();
  const [incident] = incidents;
  t.is(incident?.t === 'unresponsive' && incident.why, 'its event loop does not turn');
  t.false(stuck.gone);
  await clock.advance(9000);
  t.true(stuck.gone);
  for (let tries = 0; tries < 20 && supervisor.unit('a.v1.stuck').state !== 'ready'; tries++) await clock.advance(100);
  await turnUntil(clock, () => supervisor.unit('a.v1.stuck').state === 'ready');
  t.is(supervisor.unit('a.v1.stuck').generation, 2);
});

test('B11 time in which the watch itself did not run, on a machine that is too busy or that slept, is nobody’s fault', async (t) => {
  const { worker, supervisor } = useFakes(t, [manifest('a.v1.fine')], undefined, { unresponsiveMs: 0, killMs: 0 });
  await supervisor.boot();
  const fine = worker('a.v1.fine');
  let now = 0;
  const told: string[] = [];
  const watch = new Watch(
    () => [fine],
    limits,
    {
      unresponsive: (_handle, silentMs) => told.push(`unresponsive ${silentMs}`),
      responsive: () => told.push('responsive'),
      kill: () => told.push('kill'),
    },
    { now: () => now, after: () => () => {} },
  );
  const lookAfter = (ms: number) => {
    now += ms;
    watch.look();
  };
  fine.beat();
  lookAfter(250);
  for (let count = 0; count < 20; count++) lookAfter(20_000 * (count % 2));
  t.deepEqual(
    told.filter((what) => what === 'kill'),
    [],
  );
  fine.beat();
  lookAfter(250);
  told.length = 0;
  for (let count = 0; count < 41; count++) lookAfter(250);
  t.deepEqual(told, ['unresponsive 1000', 'kill']);
});

test('B11 one that comes back is told of as well, and one that only waits is not taken for hanging', async (t) => {
  const { supervisor, clock, incidents, worker } = useFakes(t, [manifest('a.v1.slow')], undefined, limits);
  await supervisor.boot();
  const slow = worker('a.v1.slow');
  // A handler that waits for a minute: the loop turns, nothing waits.
  await beating(clock, slow, 60_000);
  t.deepEqual(incidents, []);
  await clock.advance(2000);
  while (incidents.length === 0) await settled();
  await beating(clock, slow, 500);
  t.deepEqual(
    incidents.map((incident) => incident.t),
    ['unresponsive', 'responsive'],
  );
  t.false(slow.gone);
});

test('B11 calls that have come and are not begun are a sign as well, though the loop turns', async (t) => {
  const { supervisor, clock, incidents, worker } = useFakes(t, [manifest('a.v1.deaf')], undefined, limits);
  await supervisor.boot();
  const deaf = worker('a.v1.deaf');
  const page = new ControlPage(deaf.page);
  page.waiting = 3;
  await beating(clock, deaf, 1500);
  while (incidents.length === 0) await settled();
  const [incident] = incidents;
  t.is(incident?.t === 'unresponsive' && incident.why, 'its event loop turns, and calls that have come are not begun');
  page.take();
  await beating(clock, deaf, 500);
  t.is(incidents.at(-1)?.t, 'responsive');
});

test('B11 one that says it is in a system call is not ended before the time that it has promised', async (t) => {
  const { supervisor, clock, incidents, worker } = useFakes(t, [manifest('a.v1.disk')], undefined, limits);
  await supervisor.boot();
  const disk = worker('a.v1.disk');
  disk.beat();
  await clock.advance(500);
  new ControlPage(disk.page).busy('waiting for a disk', 20_000, () => {
    // Entered, and not left: what another thread sees while the call lasts. Its end is told by the clock of this test.
    Atomics.add(new Int32Array(disk.page), 1, 1);
    new Float64Array(disk.page)[1] = clock.now() + 20_000;
  });
  incidents.length = 0;
  await clock.advance(15_000);
  t.false(disk.gone);
  t.deepEqual(incidents, []);
  t.is(supervisor.busy(disk)?.what, 'waiting for a disk');
  await clock.advance(25_000);
  t.true(disk.gone, 'what it promised is over');
});

test('B12 above its soft limit it is asked to collect its garbage, and ended when that does not help', async (t) => {
  const collected: string[] = [];
  const { supervisor, clock, worker, incidents } = useFakes(
    t,
    [manifest('a.v1.hoard', 'limits = { soft_mb = 100, hard_mb = 1000 }\n'), manifest('a.v1.well')],
    (_plugin, method, asked) => {
      if (method !== 'collect') return undefined;
      collected.push(asked.thread);
      if (collected.length === 1) asked.usedMb = 50;
      return {};
    },
  );
  await supervisor.boot();
  const hoard = worker('a.v1.hoard');
  await clock.advance(1000);
  hoard.usedMb = 110;
  await clock.advance(1000);
  t.deepEqual(collected, ['a.v1.hoard']);
  t.false(hoard.gone, 'it was garbage');
  hoard.usedMb = 120;
  await clock.advance(1000);
  t.true(hoard.gone);
  const ended = incidents.find((incident) => incident.t === 'ended');
  t.is(ended?.t === 'ended' && ended.reason, 'it holds 120 MB, its limit is 100 MB');
  await clock.advance(1000);
  await turnUntil(clock, () => supervisor.unit('a.v1.hoard').state === 'ready');
  t.is(supervisor.unit('a.v1.well').generation, 1);
});

test('B12 one that grows too fast to be asked is ended at once, and looked at often before that', async (t) => {
  let asked = 0;
  const { supervisor, clock, worker } = useFakes(
    t,
    [manifest('a.v1.bomb', 'limits = { soft_mb = 100, hard_mb = 1000 }\n')],
    (_plugin, method) => {
      if (method === 'collect') asked += 1;
      return undefined;
    },
  );
  await supervisor.boot();
  const bomb = worker('a.v1.bomb');
  await clock.advance(1000);
  bomb.usedMb = 400;
  await clock.advance(300);
  t.true(bomb.gone);
  t.is(asked, 0);
  // Megabytes a millisecond, and how soon it is looked at again.
  t.is(intervalOf(10, 0, 1000), 250);
  t.is(intervalOf(100, 1, 1000), 225);
  t.is(intervalOf(500, 5, 1000), 25);
  t.is(intervalOf(900, 50, 1000), 20);
});
