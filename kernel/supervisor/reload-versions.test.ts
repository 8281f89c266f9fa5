/** Reloads to other versions, of contracts, of state and of tables: real workers. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { booted, caller, type Fixture, goesOn, health, healthToml, useSupervisor } from './rig.ts';

test.serial(
  'B17 a provider changes its version only so that what its users ask for holds, and a refusal names both',
  async (t) => {
    const versioned = (version: string): Fixture => ({
      toml: healthToml().replace('public = true', `public = true\nversion = "${version}"`),
      code: health('return { status: ctx.generation };'),
    });
    const user = caller(4);
    const rig = await booted(
      useSupervisor(t, {
        provider: versioned('1.2.0'),
        user: { ...user, toml: `${user.toml}[uses]\n"grpc.health.v1.Health" = "^1.2"\n` },
      }),
    );
    const unit = rig.supervisor.unit('test.v1.health');
    let generation = 1;
    for (const [version, fits] of [
      ['1.2.1', true],
      ['2.0.0', false],
      ['1.9.0', true],
      ['1.1.9', false],
      ['0.2.0', false],
      ['1.2.0', true],
    ] as const) {
      rig.write('provider', versioned(version));
      const { outcome, reason } = await unit.reload({ force: true });
      t.is(outcome, fits ? 'reloaded' : 'kept', `${version}: ${reason}`);
      if (fits) generation += 1;
      else
        for (const part of ['test.v1.caller', '^1.2', 'test.v1.health', version]) t.true(reason.includes(part), reason);
      t.is(unit.generation, generation);
    }
    await goesOn(rig);
    t.is(rig.count('failure'), 0);
    t.is(rig.supervisor.unit('test.v1.caller').generation, 1);
  },
);

test.serial('B17 state goes to a build that reads its version, up and down, and to no other', async (t) => {
  const stateful = (version: number, reads: readonly number[]): Fixture => ({
    toml: healthToml(`state = { version = ${version}, reads = [${reads.join(', ')}] }`),
    code: health(
      'return { status: ++count };',
      'activate(state) { count = state?.count ?? 0; }, suspend: () => ({ count }),',
    ).replace('return {', 'let count = 0; return {'),
  });
  const rig = await booted(useSupervisor(t, { stateful: stateful(1, [1]), caller: caller(4) }));
  const unit = rig.supervisor.unit('test.v1.health');
  for (const [version, reads, fits] of [
    [2, [1, 2], true],
    [3, [3], false],
    [1, [1], false],
    [1, [1, 2], true],
    [1, [1], true],
  ] as const) {
    rig.write('stateful', stateful(version, reads));
    const { outcome, reason } = await unit.reload({ force: true });
    t.is(outcome, fits ? 'reloaded' : 'kept', `${version}: ${reason}`);
    if (!fits)
      t.regex(reason, /^compat: test\.v1\.health: what runs hands over state of version 2, and this build reads/);
    await goesOn(rig);
  }
  t.is(unit.generation, 4);
  t.is(rig.count('failure'), 0);
  await rig.supervisor.unit('test.v1.caller').stop('enough');
  const answers = rig.lines.filter((line) => line.message === 'answer').map((line) => Number(line.fields.status));
  t.is(new Set(answers).size, answers.length);
});

test.serial('a build with new migrations needs a restart', async (t) => {
  const noted: Fixture = {
    toml: `${healthToml()}[records]\nprefix = "health"\n`,
    code: health('return { status: 1 };'),
  };
  const rig = useSupervisor(t, { noted });
  await booted(rig);
  mkdirSync(join(rig.dir, 'noted', 'migrations'));
  writeFileSync(join(rig.dir, 'noted', 'migrations', '0001-first.sql'), 'select 1;');
  const { outcome, reason } = await rig.supervisor.unit('test.v1.health').reload({ force: true });
  t.is(outcome, 'kept');
  t.regex(reason, /brings migrations \(0001-first\.sql\): needs a restart/);
});
