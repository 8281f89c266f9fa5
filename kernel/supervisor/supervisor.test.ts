import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import type { Level } from '../log.ts';
import { loadManifest, loadManifests, plan } from '../plan/index.ts';
import { Supervisor } from './supervisor.ts';
import type { Transition } from './transitions.ts';

// One after the other: each has several workers, and what they share is the machine.
const test = ava.serial;

interface Fixture {
  toml: string;
  code: string;
}

const healthy = (body: string) => `
import { definePlugin, Failure, skip } from 'troupe/plugin';
import { HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
export default definePlugin({ async start(ctx) { ${body} } });
`;
const serveHealth = `[serves."grpc.health.v1.Health"]`;

/** A plugin that calls Health every few milliseconds and reports over its log. */
const caller: Fixture = {
  toml: 'api = 1\nid = "test.v1.caller"\nrequires = ["test.v1.health"]\n',
  code: healthy(`
    const health = ctx.call(HealthDefinition);
    return { serve: {}, async activate() {
      (async () => { for (let n = 0; !ctx.signal.aborted; n++) {
        try { const { status } = await health.check({ service: 'n' + n }); ctx.log.info('answer', { status }); }
        catch (error) { ctx.log.info('failure', { code: error.code }); }
        await new Promise((resolve) => setTimeout(resolve, 2));
      } })();
    } };`),
};

function useSupervisor(t: ExecutionContext, fixtures: Record<string, Fixture>, options: { required?: string[] } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-test-'));
  for (const [name, { toml, code }] of Object.entries({
    ...fixtures,
    front: { toml: 'api = 1\nid = "test.v1.front"\n', code: healthy('return { serve: {} };') },
  })) {
    mkdirSync(join(dir, name), { recursive: true });
    // A loaded machine is no failure of what is tested.
    writeFileSync(join(dir, name, 'plugin.toml'), `${toml}\n[deadlines]\nstart = "60s"\n`);
    writeFileSync(join(dir, name, 'index.ts'), code);
  }
  const { manifests, problems } = loadManifests(dir);
  t.deepEqual(problems, []);
  const planned = plan(
    manifests.filter((manifest) => manifest.id !== 'test.v1.front'),
    { required: options.required ?? [] },
  );
  if (!planned.ok) throw new Error(planned.problems.map((problem) => problem.message).join('; '));
  const transitions: Transition[] = [];
  const lines: { level: Level; message: string; fields: Record<string, unknown> }[] = [];
  const waiters: { test: () => boolean; resolve: () => void }[] = [];
  const heard = () => {
    for (const waiter of waiters) if (waiter.test()) waiter.resolve();
  };
  const fatal: string[] = [];
  const supervisor = new Supervisor({
    plan: planned,
    configs: new Map(),
    threads: new Map(),
    first: [],
    front: { manifest: loadManifest(join(dir, 'front')), config: {} },
    daemon: {
      address: '',
      ttrpcAddress: '',
      publishBinary: '',
      root: dir,
      state: dir,
      version: '',
      revision: '',
      pid: process.pid,
    },
    timeouts: {},
    unresponsiveMs: 300,
    killMs: 600,
    logger: {
      enabled: () => true,
      write: (level, message, fields) => {
        lines.push({ level, message, fields: { ...fields } });
        heard();
      },
    },
    fatal: (reason) => fatal.push(reason),
  });
  supervisor.onTransition((transition) => {
    transitions.push(transition);
    heard();
  });
  t.teardown(async () => {
    await supervisor.stop();
    rmSync(dir, { recursive: true, force: true });
  });
  const until = (condition: () => boolean) =>
    condition() ? Promise.resolve() : new Promise<void>((resolve) => waiters.push({ test: condition, resolve }));
  const count = (message: string, fields: Record<string, unknown> = {}) =>
    lines.filter(
      (line) => line.message === message && Object.entries(fields).every(([key, value]) => line.fields[key] === value),
    ).length;
  return {
    supervisor,
    transitions,
    lines,
    until,
    count,
    fatal,
    dir,
    states: (id: string) => transitions.filter((each) => each.slot === id).map((each) => each.to),
  };
}

const echo: Fixture = {
  toml: `api = 1\nid = "test.v1.health"\n${serveHealth}`,
  code: healthy(
    `return { serve: { [HealthDefinition.fullName]: { check: () => ({ status: ctx.generation }), async *watch() {} } } };`,
  ),
};

test('a plugin is ready before what requires it starts, and stops after it', async (t) => {
  const { supervisor, transitions, states } = useSupervisor(t, { echo, caller });
  await supervisor.boot();
  t.deepEqual(states('test.v1.health'), ['spawning', 'initializing', 'ready']);
  const at = (slot: string, to: string) => transitions.findIndex((each) => each.slot === slot && each.to === to);
  t.true(at('test.v1.health', 'ready') < at('test.v1.caller', 'initializing'));
  await supervisor.stop();
  t.true(at('test.v1.caller', 'stopped') < at('test.v1.health', 'draining'));
});

test('a call that is under way dies with its plugin, the next is served by the restarted one', async (t) => {
  const crashing: Fixture = {
    toml: `api = 1\nid = "test.v1.health"\n${serveHealth}`,
    code: healthy(`return { serve: { [HealthDefinition.fullName]: { check: ({ service }) => {
      if (ctx.generation === 1 && service === 'n5') process.exit(3);
      return { status: ctx.generation };
    }, async *watch() {} } } };`),
  };
  const { supervisor, until, count, states } = useSupervisor(t, { crashing, caller });
  await supervisor.boot();
  await until(() => count('answer', { status: 2 }) > 3);
  t.is(count('failure'), 1);
  t.is(count('failure', { code: 'Unavailable' }), 1);
  t.deepEqual(states('test.v1.health'), [
    'spawning',
    'initializing',
    'ready',
    'backoff',
    'spawning',
    'initializing',
    'ready',
  ]);
});

test('a loop without end is flagged, ended, and its plugin comes back', async (t) => {
  const looping: Fixture = {
    toml: `api = 1\nid = "test.v1.health"\n${serveHealth}`,
    code: healthy(`return { serve: { [HealthDefinition.fullName]: { check: ({ service }) => {
      if (ctx.generation === 1 && service === 'n5') for (;;) {}
      return { status: ctx.generation };
    }, async *watch() {} } } };`),
  };
  const { supervisor, until, count } = useSupervisor(t, { looping, caller });
  await supervisor.boot();
  await until(() => count('answer', { status: 2 }) > 0);
  t.is(count('worker is unresponsive', { worker: 'test.v1.health' }), 1);
  t.is(count('failure', { code: 'Unavailable' }), 1);
});

test('more crashes than the budget allows end in failed, and callers are told', async (t) => {
  const hopeless: Fixture = {
    toml: `api = 1\nid = "test.v1.health"\n${serveHealth}\n[backoff]\nrestarts = 2\nmax = "10ms"`,
    code: healthy(
      `return { serve: { [HealthDefinition.fullName]: { check: () => process.exit(1), async *watch() {} } } };`,
    ),
  };
  const { supervisor, until, states } = useSupervisor(t, { hopeless, caller });
  await supervisor.boot();
  await until(() => states('test.v1.health').includes('failed'));
  t.is(supervisor.unit('test.v1.health').restarts, 2);
  t.regex(supervisor.unit('test.v1.health').reason, /^more than 2 restarts in 30 s: exited with code 1/);
  t.is(supervisor.unit('test.v1.caller').state, 'ready');
});

test('a required plugin that does not start fails the boot, with its reason', async (t) => {
  const broken: Fixture = {
    toml: 'api = 1\nid = "test.v1.broken"\n',
    code: healthy(`throw new Failure('Unavailable', 'no such disk');`),
  };
  const { supervisor } = useSupervisor(t, { broken }, { required: ['test.v1.broken'] });
  const error = await t.throwsAsync(supervisor.boot());
  t.regex(error.message, /required plugin test\.v1\.broken: no such disk/);
});

test('skip is no failure: those that want it start, those that require it are skipped too', async (t) => {
  const skipped: Fixture = { toml: 'api = 1\nid = "test.v1.health"\n', code: healthy(`throw skip('no such device');`) };
  const wanting: Fixture = {
    toml: 'api = 1\nid = "test.v1.wanting"\nwants = ["test.v1.health"]',
    code: healthy('return { serve: {} };'),
  };
  const { supervisor } = useSupervisor(t, { skipped, wanting, caller });
  await supervisor.boot();
  t.is(supervisor.unit('test.v1.health').reason, 'no such device');
  t.is(supervisor.unit('test.v1.wanting').state, 'ready');
  t.is(supervisor.unit('test.v1.caller').state, 'skipped');
});

const counting: Fixture = {
  toml: `api = 1\nid = "test.v1.health"\n${serveHealth}`,
  code: healthy(`let count = 0;
    return {
      serve: { [HealthDefinition.fullName]: { check: () => ({ status: ++count }), async *watch() {} } },
      activate(state) { count = state?.count ?? 0; },
      suspend() { return { count }; },
    };`),
};

test('reload under calls: none fails, none is lost, the state goes on', async (t) => {
  const { supervisor, until, count, lines } = useSupervisor(t, { counting, caller });
  await supervisor.boot();
  const unit = supervisor.unit('test.v1.health');
  for (let reload = 0; reload < 5; reload++) {
    const before = count('answer');
    const outcome = await unit.reload();
    t.is(outcome.outcome, 'reloaded', outcome.reason);
    await until(() => count('answer') > before + 5);
  }
  t.is(unit.generation, 6);
  t.is(count('failure'), 0);
  const statuses = lines.filter((line) => line.message === 'answer').map((line) => line.fields.status);
  t.deepEqual(
    statuses,
    statuses.map((_, index) => index + 1),
  );
});

for (const [what, change, outcome] of [
  ['a syntax error', 'export default }', 'kept'],
  ['a throw at import', 'throw new Error("no"); export default {}', 'kept'],
  ['a start that fails', healthy('throw new Error("not today");'), 'kept'],
  [
    'an activate that fails',
    healthy(
      'return { serve: { [HealthDefinition.fullName]: { check() {}, watch() {} } }, activate() { throw new Error("bad state"); } };',
    ),
    'kept',
  ],
  [
    'an activate that hangs',
    healthy(
      'return { serve: { [HealthDefinition.fullName]: { check() {}, watch() {} } }, activate() { return new Promise(() => {}); } };',
    ),
    'kept',
  ],
] as const) {
  test(`a successor with ${what} is dropped, the old generation serves on`, async (t) => {
    const { supervisor, until, count, dir } = useSupervisor(t, { counting, caller });
    await supervisor.boot();
    writeFileSync(join(dir, 'counting', 'index.ts'), change);
    const reloaded = await supervisor.unit('test.v1.health').reload();
    t.is(reloaded.outcome, outcome, reloaded.reason);
    t.not(reloaded.reason, '');
    const before = count('answer');
    await until(() => count('answer') > before + 5);
    t.is(count('failure'), 0);
    t.is(supervisor.unit('test.v1.health').generation, 1);
  });
}
