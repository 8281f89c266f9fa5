/** B9: how often a plugin comes back, with whom, and when that is enough. A clock that is turned by hand. */
import test from 'ava';
import { type FakeRig, manifest, turnUntil, useFakes } from './fake-workers.ts';
import { RestartBudget } from './restart-budget.ts';

const five = '[backoff]\nrestarts = 5\nwithin = "30s"\n';

/** Until it is up again, or is not tried any more; then `thenMs` more. */
async function crash(
  { worker, clock, supervisor }: FakeRig,
  id: string,
  thenMs = 0,
  reason = 'oh no',
): Promise<string> {
  worker(id).die(reason);
  const unit = supervisor.unit(id);
  do await clock.advance(100);
  while (unit.state !== 'ready' && unit.state !== 'failed');
  await clock.advance(thenMs);
  return unit.state;
}

test('B9 five deaths in thirty seconds are forgiven, the sixth is not', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.frail', five), manifest('a.v1.well')]);
  await rig.supervisor.boot();
  for (let death = 1; death <= 5; death++) t.is(await crash(rig, 'a.v1.frail'), 'ready', `death ${death}`);
  t.is(await crash(rig, 'a.v1.frail'), 'failed');
  t.is(rig.supervisor.unit('a.v1.frail').reason, 'more than 5 restarts in 30 s: oh no');
  t.is(rig.supervisor.unit('a.v1.frail').restarts, 5);
  t.is(rig.supervisor.unit('a.v1.well').state, 'ready');
  t.true(rig.supervisor.serving, 'nobody needs it');
  t.deepEqual(rig.gaveUp, []);
  // By hand it can be started again, and the budget remembers.
  await rig.supervisor.unit('a.v1.frail').start();
  t.is(rig.supervisor.unit('a.v1.frail').state, 'ready');
});

test('B9 want of descriptors is not counted: the plugin comes back when there are some again', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.frail', five)]);
  await rig.supervisor.boot();
  const reason = 'ERR_WORKER_INIT_FAILED Worker initialization failure: EMFILE';
  for (let death = 0; death < 20; death++) t.is(await crash(rig, 'a.v1.frail', 0, reason), 'ready', `death ${death}`);
});

test('B9 deaths that are spread over more than thirty seconds never stop it', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.frail', five)]);
  await rig.supervisor.boot();
  for (let death = 0; death < 100; death++) t.is(await crash(rig, 'a.v1.frail', 12_000), 'ready', `death ${death}`);
  t.is(rig.supervisor.unit('a.v1.frail').restarts, 100);
});

test('B9 a required plugin that is not coming back ends the daemon in order', async (t) => {
  const rig = useFakes(t, [manifest('a.v1.frail', five)], undefined, { required: ['a.v1.frail'] });
  await rig.supervisor.boot();
  for (let death = 0; death < 6; death++) await crash(rig, 'a.v1.frail');
  t.deepEqual(rig.gaveUp, ['required plugin a.v1.frail has failed: more than 5 restarts in 30 s: oh no']);
});

test('B9 pauses grow fourfold from nothing to the longest, a part of each taken off at random', (t) => {
  let now = 0;
  const policy = { minMs: 0, maxMs: 5000, restarts: 8, withinMs: 60_000 };
  const pauses = (random: number) => {
    const budget = new RestartBudget(
      policy,
      () => now,
      () => random,
    );
    return Array.from({ length: 9 }, () => budget.next());
  };
  t.deepEqual(pauses(0), [0, 100, 400, 1600, 5000, 5000, 5000, 5000, undefined]);
  t.deepEqual(pauses(0.8), [0, 80, 320, 1280, 4000, 4000, 4000, 4000, undefined]);
  const budget = new RestartBudget(policy, () => now);
  for (let restart = 0; restart < 8; restart++) budget.next();
  t.is(budget.next(), undefined);
  now += 60_001;
  t.is(budget.next(), 0);
});

test('B9 a start that fails counts as a death', async (t) => {
  let broken = false;
  const rig = useFakes(t, [manifest('a.v1.frail', five)], (id, method) =>
    broken && id === 'a.v1.frail' && method === 'start' ? { fails: 'no disk' } : undefined,
  );
  await rig.supervisor.boot();
  broken = true;
  t.is(await crash(rig, 'a.v1.frail'), 'failed');
  t.is(rig.supervisor.unit('a.v1.frail').reason, 'more than 5 restarts in 30 s: no disk');
});

for (const [policy, reason, state] of [
  ['permanent', 'exited with code 0', 'ready'],
  ['transient', 'exited with code 0', 'stopped'],
  ['transient', 'exited with code 1', 'ready'],
  ['temporary', 'exited with code 1', 'failed'],
] as const) {
  test(`B9 ${policy}, and it ${reason}: ${state}`, async (t) => {
    const rig = useFakes(t, [manifest('a.v1.frail', `restart = "${policy}"\n`)]);
    await rig.supervisor.boot();
    rig.worker('a.v1.frail').die(reason);
    await turnUntil(rig.clock, () => rig.supervisor.unit('a.v1.frail').state === state);
    await rig.clock.advance(1000);
    t.is(rig.supervisor.unit('a.v1.frail').state, state);
  });
}

const members = ['g.v1.a', 'g.v1.b', 'g.v1.c'] as const;
for (const [strategy, restarted] of [
  ['one_for_one', ['g.v1.b']],
  ['rest_for_one', ['g.v1.b', 'g.v1.c']],
  ['one_for_all', ['g.v1.a', 'g.v1.b', 'g.v1.c']],
] as const) {
  test(`B9 ${strategy}: who goes along when the second of three dies`, async (t) => {
    const group = (after: string) => `group = "g"\nstrategy = "${strategy}"\n${after}${five}`;
    const rig = useFakes(t, [
      manifest('g.v1.a', group('')),
      manifest('g.v1.b', group('requires = ["g.v1.a"]\n')),
      manifest('g.v1.c', group('requires = ["g.v1.b"]\n')),
      manifest('a.v1.well'),
    ]);
    await rig.supervisor.boot();
    rig.transitions.length = 0;
    rig.worker('g.v1.b').die('oh no');
    const up = () => members.every((id) => rig.supervisor.unit(id).state === 'ready');
    await rig.clock.advance(100);
    await turnUntil(rig.clock, up);
    const down = rig.transitions.filter(({ to }) => to === 'backoff').map(({ slot }) => slot);
    t.deepEqual(down.toSorted(), [...restarted]);
    for (const id of [...members, 'a.v1.well']) t.is(rig.supervisor.unit(id).state, 'ready', id);
    const ups = rig.transitions.filter(({ to }) => to === 'ready').map(({ slot }) => slot);
    t.deepEqual(ups, [...restarted], 'in the order of starting');
    // Also one that dies while those that go along with it are still coming up: they wait for it, and it does not wait for them.
    for (let death = 0; death < 3; death++) {
      rig.worker('g.v1.b').die('oh no');
      do await rig.clock.advance(10);
      while (rig.supervisor.unit('g.v1.b').state !== 'ready');
    }
    await turnUntil(rig.clock, up);
    await rig.clock.advance(60_000);
    for (const id of members) t.is(rig.supervisor.unit(id).state, 'ready', id);
    // When one of them has died too often all are given up.
    for (let death = 0; death < 6 && rig.supervisor.unit('g.v1.b').state === 'ready'; death++)
      await crash(rig, 'g.v1.b');
    for (const id of members) t.is(rig.supervisor.unit(id).state, 'failed', id);
    t.is(rig.supervisor.unit('a.v1.well').state, 'ready');
  });
}
