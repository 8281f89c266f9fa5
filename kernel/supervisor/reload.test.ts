/** Reloads of one plugin under load: real workers. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { booted, caller, counting, type Fixture, goesOn, health, healthToml, plugin, useSupervisor } from './rig.ts';

test.serial('B14 reloads under 64 calls in flight fail none, lose none, do none twice', async (t) => {
  const rig = await booted(useSupervisor(t, { counting: counting(), caller: caller(64, 0) }));
  const unit = rig.supervisor.unit('test.v1.health');
  for (let reload = 0; reload < 20; reload++) {
    const outcome = await unit.reload({ force: true });
    t.is(outcome.outcome, 'reloaded', outcome.reason);
    await goesOn(rig);
  }
  t.is(unit.generation, 21);
  t.is(rig.count('failure'), 0);
  await rig.supervisor.unit('test.v1.caller').stop('enough');
  const answers = rig.lines.filter((line) => line.message === 'answer').map((line) => Number(line.fields.status));
  // Replies of one generation and the next may cross on the way; each number comes once.
  t.is(new Set(answers).size, answers.length);
  if (answers.length < 10_000) t.is(Math.max(...answers), answers.length);
});

test.serial(
  'B15 a call that takes its time holds a reload up for a moment only, and is finished by the old generation',
  async (t) => {
    const slow = {
      toml: healthToml(),
      code: health(`ctx.log.info('begun', { service }); await_; return { status: ctx.generation };`)
        .replace('check({', 'async check({')
        .replace('await_', `if (ctx.generation === 1) await new Promise((resolve) => { globalThis.go = resolve; })`)
        .replace('return {', `const timer = setInterval(() => { if (ctx.state_go) globalThis.go?.(); }, 10); return {`),
    };
    // Let go of by a second method: the first generation ends its call when the next one serves.
    const code = slow.code.replace(
      'async *watch(_request, call) {',
      'async *watch(_request, call) { globalThis.go?.();',
    );
    const rig = useSupervisor(t, { slow: { ...slow, code }, caller: caller(1, 0) });
    await rig.supervisor.boot();
    await rig.until(() => rig.count('begun') === 1);
    const { handle } = rig.supervisor.unit('test.v1.health').serving!;
    const { outcome, reason } = await rig.supervisor.unit('test.v1.health').reload({ force: true });
    t.is(outcome, 'reloaded', reason);
    t.false(handle.gone);
    t.is(rig.count('answer'), 0);
    t.is(rig.count('failure'), 0);
  },
);

test.serial(
  'a reload of what has not changed does nothing, one that is forced does; a comment in a file that is imported counts',
  async (t) => {
    const split: Fixture = {
      toml: healthToml(),
      code: `import { value } from './value.ts';\n${health('return { status: value };')}`,
    };
    const rig = useSupervisor(t, { split, caller: caller() });
    writeFileSync(join(rig.dir, 'split', 'value.ts'), 'export const value = 1;\n');
    await booted(rig);
    const unit = rig.supervisor.unit('test.v1.health');
    t.is((await unit.reload()).outcome, 'unchanged');
    t.is(unit.generation, 1);
    t.is((await unit.reload({ force: true })).outcome, 'reloaded');
    writeFileSync(join(rig.dir, 'split', 'value.ts'), 'export const value = 2;\n');
    t.is((await unit.reload()).outcome, 'reloaded');
    await rig.until(() => rig.count('answer', { status: 2 }) > 3);
    t.is((await unit.reload()).outcome, 'unchanged');
    t.is((await unit.reload({ config: { key: 'value' } })).outcome, 'reloaded');
  },
);

test.serial('reloads that are asked for while one runs are one more', async (t) => {
  const rig = await booted(useSupervisor(t, { counting: counting(), caller: caller(4) }));
  const unit = rig.supervisor.unit('test.v1.health');
  const outcomes = await Promise.all([1, 2, 3, 4, 5].map(() => unit.reload({ force: true })));
  t.deepEqual(
    outcomes.map(({ generation }) => generation),
    [2, 2, 2, 2, 2],
  );
  const running = unit.reload({ force: true });
  // Its turn has come, so the next one is another.
  await rig.until(() => unit.starting !== undefined);
  const pending = [unit.reload({ force: true }), unit.reload({ force: true })];
  t.is((await running).generation, 3);
  t.deepEqual(
    (await Promise.all(pending)).map(({ generation }) => generation),
    [4, 4],
  );
  t.is(rig.count('failure'), 0);
});

test.serial(
  'exclusive: every call ends before the state is taken; one that does not end keeps the old generation',
  async (t) => {
    const strict = {
      toml:
        healthToml('reload = "exclusive"') +
        '[serves."grpc.health.v1.Health".methods.Watch]\nunbounded = true\non_reload = "migrate"\n',
      code: plugin(`let running = 0;
      return { serve: { [HealthDefinition.fullName]: {
        async check() { running += 1; await new Promise((resolve) => setTimeout(resolve, 20)); running -= 1; return { status: ctx.generation }; },
        async *watch(_request, call) { yield { status: ctx.generation }; await new Promise((resolve) => call.signal.addEventListener('abort', resolve)); },
      } }, suspend() { ctx.log.info('suspended', { running }); } };`),
    };
    const rig = useSupervisor(t, { strict, caller: caller(8, 0) });
    await rig.supervisor.boot();
    const unit = rig.supervisor.unit('test.v1.health');
    for (let reload = 0; reload < 3; reload++) t.is((await unit.reload({ force: true })).outcome, 'reloaded');
    t.is(rig.count('suspended', { running: 0 }), 3);
    t.is(rig.count('failure'), 0);
  },
);

test.serial('copies of builds: one for what serves and one for what may have to come back', async (t) => {
  const rig = await booted(useSupervisor(t, { counting: counting() }));
  const unit = rig.supervisor.unit('test.v1.health');
  for (let build = 0; build < 4; build++) {
    rig.write('counting', { code: `${counting().code}\n// ${build}\n` });
    t.is((await unit.reload()).outcome, 'reloaded');
  }
  const folder = join(rig.dir, '.state', 'troupe.kernel.v1.kernel', 'builds', 'test.v1.health');
  await rig.until(() => readdirSync(folder).length <= 2);
  rmSync(join(rig.dir, 'counting', 'index.ts'));
  await unit.kill('for the test');
  await rig.until(() => unit.generation === 6 && unit.state === 'ready');
  t.true(unit.build.dir.startsWith(folder));
});
