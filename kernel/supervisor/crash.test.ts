/** A plugin that dies, and everybody else: real workers. */
import test from 'ava';
import { caller, health, healthToml, plugin, useSupervisor } from './rig.ts';

test.serial('B7 a call that is under way dies with its plugin, the next is served by the restarted one', async (t) => {
  const crashing = {
    toml: healthToml(),
    code: health(`if (ctx.generation === 1 && service === 'n5') process.exit(3); return { status: ctx.generation };`),
  };
  const { supervisor, until, count, states } = useSupervisor(t, { crashing, caller: caller() });
  await supervisor.boot();
  await until(() => count('answer', { status: 2 }) > 3);
  t.is(count('failure'), 1);
  t.is(count('failure', { code: 'Unavailable' }), 1);
  const started = ['spawning', 'initializing', 'ready'];
  t.deepEqual(states('test.v1.health'), [...started, 'backoff', ...started]);
});

test.serial('B11 a plugin that hangs in its very first call is ended as any other', async (t) => {
  const hanging = {
    toml: `${healthToml()}[backoff]\nmin = "0ms"\nmax = "1ms"\n`,
    code: health('if (ctx.generation < 3) for (;;); return { status: ctx.generation };'),
  };
  const rig = useSupervisor(t, { hanging, caller: caller(1) }, { unresponsiveMs: 500, killMs: 1000 });
  await rig.supervisor.boot();
  await rig.until(() => rig.count('answer', { status: 3 }) > 3);
  t.is(rig.incidents.filter((each) => each.t === 'ended').length, 2);
  t.is(rig.count('failure'), 2);
});

const other = {
  toml: 'api = 1\nid = "test.v1.other"\n[serves."containerd.services.content.v1.Content"]\npublic = true\n',
  code: plugin(`const none = () => ({}); async function* nothing() {}
    return { serve: { [ContentDefinition.fullName]: {
      info: () => ({ info: undefined }), update: none, list: nothing, delete: none, read: nothing, status: none, listStatuses: none, write: nothing, abort: none,
    } } };`),
};
/** Calls the plugin that is well all the time. */
const bystander = {
  toml: 'api = 1\nid = "test.v1.bystander"\nrequires = ["test.v1.other"]\n',
  code: plugin(`const content = ctx.call(ContentDefinition);
    const loop = async () => { while (!ctx.signal.aborted) {
      try { await content.info({ digest: 'x' }); ctx.log.info('well'); } catch (error) { if (!ctx.signal.aborted) ctx.log.info('harmed', { error }); }
    } };
    return { serve: {}, activate() { for (let each = 0; each < 8; each++) void loop(); } };`),
};

for (const [what, death, reason] of [
  [
    'throws where nobody catches',
    `setImmediate(() => { throw new Error('oh no'); }); await new Promise(() => {});`,
    /oh no/,
  ],
  [
    'leaves a rejection unhandled',
    `void Promise.reject(new Error('oh dear')); await new Promise(() => {});`,
    /oh dear/,
  ],
  ['calls process.exit', `process.exit(0);`, /exited with code 0/],
] as const) {
  test.serial(`B7 a plugin that ${what} takes its own calls along and nobody else's`, async (t) => {
    const dying = {
      toml: healthToml(),
      code: health(
        `return (async () => { if (ctx.generation === 1 && service === 'n40') { ${death} } await null; return { status: ctx.generation }; })();`,
      ),
    };
    const { supervisor, until, count, lines } = useSupervisor(t, {
      dying,
      caller: caller(64, 0),
      other,
      bystander,
    });
    await supervisor.boot();
    await until(() => count('answer', { status: 2 }) > 100 && count('well') > 100);
    t.is(count('harmed'), 0);
    t.true(count('failure') >= 1 && count('failure') <= 64, `${count('failure')} failures`);
    t.is(count('failure', { code: 'Unavailable' }), count('failure'));
    t.regex(String(lines.find((line) => line.message === 'plugin died')?.fields.reason), reason);
    t.is(supervisor.unit('test.v1.other').generation, 1);
    t.is(supervisor.unit('test.v1.bystander').generation, 1);
  });
}

test.serial('B7 calls that a dead generation had not begun are not lost: they wait for the next', async (t) => {
  // The thread is stuck in one call while 63 others wait in its queue; then it dies.
  const stuck = {
    toml: healthToml(),
    code: health(`
      if (ctx.generation === 1 && service === 'n0') { const until = Date.now() + 1000; while (Date.now() < until); process.exit(1); }
      return { status: ctx.generation };`),
  };
  const { supervisor, until, count } = useSupervisor(t, { stuck, caller: caller(64, 1) });
  await supervisor.boot();
  await until(() => count('answer', { status: 2 }) > 64);
  t.is(count('failure'), 1);
});

test.serial('B7 what a plugin posts to the kernel by itself is counted, and ends it, not the daemon', async (t) => {
  const rude = {
    toml: healthToml(),
    code: plugin(`const { workerData, parentPort } = await import('node:worker_threads');
      const beRude = () => {
        parentPort.postMessage(null); parentPort.postMessage({ id: 1, type: 'RAW' }); parentPort.postMessage('x');
        for (const message of [null, 7, { t: 'log', id: ctx.id, level: 'shout', message: 'x' }, { t: 'introduce', id: 'test.v1.caller', slot: 'x' }, { t: 'child', id: ctx.id, pid: -1, running: true }])
          workerData.channel.postMessage(message);
      };
      return { serve: { [HealthDefinition.fullName]: {
        check({ service }) { if (ctx.generation === 1 && service === 'n3') beRude(); return { status: ctx.generation }; },
        async *watch() {},
      } } };`),
  };
  const { supervisor, until, count, incidents } = useSupervisor(t, { rude, caller: caller() });
  await supervisor.boot();
  await until(() => count('answer', { status: 2 }) > 3);
  t.is(incidents.filter((incident) => incident.t === 'ended').length, 1);
});

test.serial(
  'B8 whoever holds a link to a plugin is told of its death, also where the link never arrived',
  async (t) => {
    // It dies as soon as it is up, many times, so that links are made before, while and after.
    const brief = {
      toml: `${healthToml()}[backoff]\nrestarts = 1000\nmax = "1ms"\n`,
      code: health(
        `return { status: ctx.generation };`,
        `activate() { if (ctx.generation < 12) setTimeout(() => process.exit(1), ctx.generation % 4); },`,
      ),
    };
    const { supervisor, until, count, lines } = useSupervisor(t, { brief, caller: caller(16, 0) });
    await supervisor.boot();
    await until(() => count('answer', { status: 12 }) > 200);
    // Nobody waits on a link to a dead generation: all that were called have answered, by success or by failure.
    const stats = await supervisor.unit('test.v1.caller').stats();
    t.true((stats?.pending ?? 99) <= 16);
    t.true(lines.every((line) => line.message !== 'failure' || line.fields.code === 'Unavailable'));
  },
);

test.serial('B10 what a plugin handed over is not given to it again after a crash', async (t) => {
  const poisoned = {
    toml: healthToml(),
    code: health(
      `if (ctx.generation === 2) process.exit(1); return { status: ctx.generation };`,
      `activate(state) { ctx.log.info('state', { generation: ctx.generation, given: state?.poison ?? 'none' }); }, suspend() { return { poison: 'yes' }; },`,
    ),
  };
  const { supervisor, until, count, lines } = useSupervisor(t, { poisoned, caller: caller() });
  await supervisor.boot();
  await supervisor.settled;
  const { outcome, reason } = await supervisor.unit('test.v1.health').reload({ force: true });
  t.is(outcome, 'reloaded', reason);
  await until(() => count('answer', { status: 3 }) > 3);
  t.deepEqual(
    lines.filter((line) => line.message === 'state').map((line) => [line.fields.generation, line.fields.given]),
    [
      [1, 'none'],
      [2, 'yes'],
      [3, 'none'],
    ],
  );
});
