/** Starts, deaths and ends of plugins, with workers that are objects and a clock that is turned by hand. */
import test from 'ava';
import { Failure } from '../sdk/failure.ts';
import { dice, type FakeRig, manifest, settled, useFakes } from './fake-workers.ts';
import { allowed, type Transition } from './transitions.ts';

/** One current state for each slot at any time, and no arrow that is not drawn. */
function misdrawn(transitions: readonly Transition[]): string[] {
  const current = new Map<string, string>();
  return transitions.flatMap(({ slot, from, to }) => {
    const state = current.get(slot) ?? 'declared';
    current.set(slot, to);
    return [
      ...(state === from ? [] : [`${slot} was ${state}, and left ${from}`]),
      ...(allowed(from, to) ? [] : [`${slot}: ${from} → ${to}`]),
    ];
  });
}

test('B1 a thousand things happen to plugins at random, and only arrows that are drawn are taken', async (t) => {
  for (const seed of [1, 2, 3, 4]) {
    const random = dice(seed);
    const calm = { at: true };
    const rig = useFakes(
      t,
      [
        manifest('a.v1.base'),
        manifest('a.v1.left', 'requires = ["a.v1.base"]\n[backoff]\nrestarts = 1000\n'),
        manifest('a.v1.right', 'wants = ["a.v1.base"]\nrestart = "transient"\n'),
        manifest('a.v1.top', 'requires = ["a.v1.left"]\nrestart = "temporary"\n'),
        manifest('g.v1.one', 'group = "g"\nstrategy = "one_for_all"\n'),
        manifest('g.v1.two', 'group = "g"\nstrategy = "one_for_all"\n'),
        manifest('r.v1.one', 'group = "r"\nstrategy = "rest_for_one"\n'),
        manifest('r.v1.two', 'group = "r"\nstrategy = "rest_for_one"\nrequires = ["r.v1.one"]\n'),
      ],
      (_plugin, method) => {
        if (calm.at || random() > 0.15 || method === 'stats' || method === 'drained') return undefined;
        const roll = random();
        if (roll < 0.3) return { fails: `no ${method} today` };
        if (roll < 0.5) return { dies: 'exited with code 1' };
        if (roll < 0.8) return { never: true };
        return method === 'start' ? { answer: { t: 'skipped', reason: 'nothing to do' } } : undefined;
      },
    );
    await rig.supervisor.boot();
    calm.at = false;
    const { units } = rig.supervisor;
    for (let step = 0; step < 250; step++) {
      const unit = units[Math.floor(random() * (units.length - 1))]!;
      const roll = random();
      // What is asked for may be refused; what must not be is another arrow.
      const refused = (error: unknown) => t.true(error instanceof Failure, String(error));
      if (roll < 0.35) (unit.serving?.handle as { die?(reason: string): void })?.die?.('exited with code 0');
      else if (roll < 0.6) void unit.reload({ force: true }).catch(refused);
      else if (roll < 0.7) void unit.stop('for the test').catch(refused);
      else if (roll < 0.9) void unit.start().catch(refused);
      else if (roll < 0.95) void unit.kill('for the test').catch(refused);
      if (random() < 0.5) await settled();
      await rig.clock.advance(Math.floor(random() * 1000));
    }
    calm.at = true;
    await rig.clock.advance(60_000);
    t.deepEqual(misdrawn(rig.transitions), [], `seed ${seed}`);
    t.true(rig.transitions.length > 250, `${rig.transitions.length} transitions of seed ${seed}`);
    // What it looks like is what the events said last.
    for (const unit of units) {
      t.is(rig.transitions.findLast(({ slot }) => slot === unit.id)?.to, unit.state, unit.id);
      const lives = rig.workers.filter((worker) => !worker.gone && worker.plugins.includes(unit.id)).length;
      t.is(lives, unit.state === 'ready' ? 1 : 0, `${unit.id} is ${unit.state} and has ${lives} workers`);
    }
    t.deepEqual(rig.fatal, []);
  }
});

test('B2 of two hundred random graphs no plugin starts before what it requires is ready, and none waits for more than that', async (t) => {
  const random = dice(7);
  for (let graph = 0; graph < 200; graph++) {
    const size = 2 + Math.floor(random() * 8);
    const requires = Array.from({ length: size }, (_, index) =>
      Array.from({ length: index }, (_, on) => on).filter(() => random() < 0.3),
    );
    const manifests = requires.map((on, index) =>
      manifest(`x.v1.p${index}`, `requires = [${on.map((each) => `"x.v1.p${each}"`).join(', ')}]\n`),
    );
    const ready = new Set<string>();
    const early: string[] = [];
    // Time is counted in rounds: all that may start starts in the same one.
    const round = new Map<string, number>();
    const rig = useFakes(t, manifests, (plugin, method) => {
      const index = manifests.findIndex(({ id }) => id === plugin);
      if (index === -1) return undefined;
      const on = requires[index]!.map((each) => `x.v1.p${each}`);
      if (method === 'start') {
        early.push(...on.filter((each) => !ready.has(each)).map((each) => `${plugin} before ${each}`));
        round.set(plugin, 1 + Math.max(0, ...on.map((each) => round.get(each) ?? 0)));
      }
      return undefined;
    });
    rig.supervisor.onTransition(({ slot, to }) => to === 'ready' && ready.add(slot));
    await rig.supervisor.boot();
    t.deepEqual(early, []);
    t.is(ready.size, size + 1);
    // The order in which they began is one of rounds: nobody of a later round was waited for.
    const began = rig.transitions.filter(({ to }) => to === 'initializing').map(({ slot }) => slot);
    for (const [place, id] of began.entries()) {
      if (id === 'test.v1.front') continue;
      const passed = began.slice(0, place).filter((each) => (round.get(each) ?? 0) > (round.get(id) ?? 0));
      t.deepEqual(passed, [], `${id} waited for ${passed.join(', ')}`);
    }
  }
});

test('B3 of plugins that wait for each other not one thread is made, and the path is named', (t) => {
  const cycle = [
    manifest('a.v1.a', 'requires = ["a.v1.b"]\n'),
    manifest('a.v1.b', 'requires = ["a.v1.c"]\n'),
    manifest('a.v1.c', 'requires = ["a.v1.a"]\n'),
  ];
  let made: FakeRig | undefined;
  t.throws(
    () => {
      made = useFakes(t, cycle);
    },
    { message: 'plugins wait for each other: a.v1.a → a.v1.b → a.v1.c → a.v1.a' },
  );
  t.is(made, undefined);
  t.throws(() => useFakes(t, [manifest('a.v1.a', 'requires = ["a.v1.nobody"]\n')]), {
    message: /a\.v1\.a requires a\.v1\.nobody, which no plugin is/,
  });
});

const silent = (plugin: string) => (id: string, method: string) =>
  id === plugin && method === 'start' ? ({ never: true } as const) : undefined;

test('B4 one that never says it is ready has failed, its worker is gone, and the others serve', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.mute'), manifest('a.v1.well')], silent('a.v1.mute'));
  await rig.supervisor.boot();
  const { state, reason } = rig.supervisor.unit('a.v1.mute');
  t.is(state, 'failed');
  t.regex(reason, /^start deadline: its start\(\) has not returned within 10 s/);
  t.true(rig.workers.find(({ plugins }) => plugins.includes('a.v1.mute'))!.gone);
  t.is(rig.supervisor.unit('a.v1.well').state, 'ready');
  t.true(rig.supervisor.serving);
});

test('B4 a plugin that takes longer says so in its manifest', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.mute', '[deadlines]\nstart = "30s"\n')], silent('a.v1.mute'));
  await rig.supervisor.boot();
  t.regex(rig.supervisor.unit('a.v1.mute').reason, /^start deadline: its start\(\) has not returned within 30 s/);
});

test('B4 where it is required the boot fails, and the front never opened its sockets', async (t) => {
  const manifests = [manifest('a.v1.mute'), manifest('a.v1.well')];
  const rig = useFakes(t, manifests, silent('a.v1.mute'), { required: ['a.v1.mute'] });
  await t.throwsAsync(rig.supervisor.boot(), { message: /^load required plugin a\.v1\.mute: start deadline/ });
  t.false(rig.transitions.some(({ slot, to }) => slot === 'test.v1.front' && to === 'ready'));
  t.false(rig.supervisor.serving);
});

test('B5 one that skips has not failed: who wants it starts, who requires it is skipped with the chain', async (t) => {
  const rig = useFakes(
    t,
    [
      manifest('a.v1.skips'),
      manifest('a.v1.wants', 'wants = ["a.v1.skips"]\n'),
      manifest('a.v1.requires', 'requires = ["a.v1.skips"]\n'),
      manifest('a.v1.further', 'requires = ["a.v1.requires"]\n'),
    ],
    (id, method) =>
      id === 'a.v1.skips' && method === 'start' ? { answer: { t: 'skipped', reason: 'no overlayfs' } } : undefined,
  );
  await rig.supervisor.boot();
  const state = (id: string) => {
    const unit = rig.supervisor.unit(id);
    return `${unit.state}: ${unit.reason}`;
  };
  t.is(state('a.v1.skips'), 'skipped: no overlayfs');
  t.is(state('a.v1.wants'), 'ready: ');
  t.is(state('a.v1.requires'), 'skipped: requires a.v1.skips, which is skipped: no overlayfs');
  t.is(
    state('a.v1.further'),
    'skipped: requires a.v1.requires, which is skipped: requires a.v1.skips, which is skipped: no overlayfs',
  );
  t.deepEqual(
    rig.workers
      .filter((worker) => !worker.gone)
      .map(({ thread }) => thread)
      .sort(),
    ['a.v1.wants', 'test.v1.front'],
  );
});

test('B6 they stop in the reverse of the order in which they started, and one that hangs is ended', async (t) => {
  const stopped: string[] = [];
  const rig = useFakes(
    t,
    [
      manifest('a.v1.one'),
      manifest('a.v1.two', 'requires = ["a.v1.one"]\n'),
      manifest('a.v1.three', 'requires = ["a.v1.two"]\n'),
    ],
    (id, method) => {
      if (method !== 'stop') return undefined;
      stopped.push(id);
      return id === 'a.v1.two' ? { never: true } : undefined;
    },
  );
  await rig.supervisor.boot();
  await rig.supervisor.stop();
  t.deepEqual(stopped, ['test.v1.front', 'a.v1.three', 'a.v1.two', 'a.v1.one']);
  t.true(rig.workers.every((worker) => worker.gone));
  t.deepEqual(misdrawn(rig.transitions), []);
});
