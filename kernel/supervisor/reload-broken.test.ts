/** Reloads to builds that are broken, or from such: real workers. */
import test from 'ava';
import {
  booted,
  caller,
  counting,
  type Fixture,
  goesOn,
  health,
  healthToml,
  idempotent,
  plugin,
  useSupervisor,
} from './rig.ts';

const successors: readonly (readonly [string, Partial<Fixture>, RegExp])[] = [
  ['a syntax error', { code: 'const a: number = 1;\nexport default }' }, /^start: .*index\.ts:2: /],
  ['a throw at import', { code: '\n\nthrow new Error("no"); export default {}' }, /^start: .*index\.ts:3: no/],
  [
    'no default export',
    { code: 'export const nothing = 1;' },
    /^start: .*index\.ts has no default export made by definePlugin/,
  ],
  ['an import that is not there', { code: 'import "./missing.ts";' }, /^start: .*missing\.ts/],
  ['a start that fails', { code: plugin('throw new Error("not today");') }, /^start: .*index\.ts:\d+: not today/],
  ['a start that skips', { code: plugin('throw skip("no such device");') }, /^start: skipped: no such device/],
  ['a start that ends its thread', { code: plugin('process.exit(7);') }, /^start: .*exited with code 7/],
  [
    'a start that never comes back',
    {
      // Loading counts, and takes its time on a busy machine.
      toml: `${healthToml()}[deadlines]\nstart = "5s"\n`,
      code: plugin('await new Promise(() => {}); return { serve: {} };'),
    },
    /^start: start deadline: its start\(\) has not returned within 5 s/,
  ],
  [
    'an activate that throws',
    { code: health('', 'activate() { throw new Error("bad state"); },') },
    /^activate: .*index\.ts:\d+: bad state/,
  ],
  [
    'an activate that hangs',
    { code: health('', 'activate() { return new Promise(() => {}); },') },
    /^activate: .*has not answered activate/,
  ],
  [
    'an activate that loops',
    { code: health('', 'activate() { for (;;); },') },
    /^activate: .*has not answered activate/,
  ],
  [
    'an activate that ends its thread',
    { code: health('', 'activate() { process.exit(8); },') },
    /^activate: .*exited with code 8/,
  ],
  [
    'a wrong API version',
    { toml: healthToml().replace('api = 1', 'api = 2') },
    /^manifest: .*written for version 2 of troupe\/plugin, this kernel offers 1/,
  ],
  ['a manifest that does not parse', { toml: 'api = ' }, /^manifest: .*plugin\.toml/],
  [
    'a state version that it does not read',
    { toml: healthToml('state = { version = 2, reads = [2, 3] }') },
    /^compat: .*hands over state of version 1, and this build reads 2, 3/,
  ],
];

for (const [what, change, reason] of successors) {
  test.serial(`B16 a successor with ${what} is dropped, and the old generation serves on`, async (t) => {
    const short = /hangs|loops/.test(what);
    const rig = await booted(
      useSupervisor(t, { counting: counting(), caller: caller(8) }, short ? { holdMs: 300 } : {}),
    );
    rig.write('counting', change);
    const unit = rig.supervisor.unit('test.v1.health');
    const reloaded = await unit.reload();
    t.is(reloaded.outcome, 'kept', reloaded.reason);
    t.regex(reloaded.reason, reason);
    await goesOn(rig);
    t.is(rig.count('failure'), 0);
    t.is(unit.generation, 1);
    t.is(unit.state, 'ready');
    const [failed] = rig.incidents.filter((incident) => incident.t === 'reload_failed');
    t.is(failed?.plugin, 'test.v1.health');
    t.true(reloaded.reason.startsWith(`${failed?.stage}: `));
    // It is mended, and then it goes.
    rig.write('counting', counting());
    t.is((await unit.reload({ force: true })).outcome, 'reloaded');
    await goesOn(rig);
    t.is(rig.count('failure'), 0);
  });
}

for (const [what, suspend] of [
  ['throws', 'throw new Error("not now");'],
  ['hangs', 'return new Promise(() => {});'],
  ['ends its thread', 'process.exit(9);'],
] as const) {
  test.serial(
    `B16 when the old generation's suspend ${what}, its build starts anew, whatever lies in the folder by then`,
    async (t) => {
      const stubborn = {
        toml: healthToml(),
        code: health('return { status: ctx.generation };', `suspend() { if (ctx.generation === 1) { ${suspend} } },`),
      };
      const rig = await booted(useSupervisor(t, { stubborn, caller: caller(8) }, { holdMs: 500 }));
      rig.write('stubborn', { code: `${stubborn.code}\n// another build\n` });
      const unit = rig.supervisor.unit('test.v1.health');
      const { digest } = unit.build;
      const outcome = await unit.reload();
      t.is(outcome.outcome, 'restarted', outcome.reason);
      t.regex(outcome.reason, /^suspend: /);
      await rig.until(() => rig.count('answer', { status: unit.generation }) > 20);
      t.is(rig.count('failure'), 0);
      t.is(unit.build.digest, digest);
      t.not(unit.build.dir, unit.manifest.dir);
    },
  );
}

test.serial(
  'B16 a successor that crashes in probation is replaced by the build before it, and not tried again until it changes',
  async (t) => {
    const good = { toml: healthToml() + idempotent, code: health('return { status: 1 };') };
    const rig = await booted(useSupervisor(t, { good, caller: caller(16) }));
    const unit = rig.supervisor.unit('test.v1.health');
    const { digest } = unit.build;
    const bad = health('return { status: 2 };', 'activate() { setTimeout(() => process.exit(5), 300); },');
    rig.write('good', { code: bad });
    t.is((await unit.reload()).outcome, 'reloaded');
    await rig.until(() => rig.count('answer', { status: 2 }) > 10);
    await rig.until(() => unit.generation === 3 && unit.state === 'ready');
    const before = rig.count('answer', { status: 1 });
    await rig.until(() => rig.count('answer', { status: 1 }) > before + 20);
    t.is(rig.count('failure'), 0);
    t.is(unit.build.digest, digest);
    t.true(rig.incidents.some((incident) => incident.t === 'reload_failed' && incident.stage === 'probation'));
    const again = await unit.reload();
    t.is(again.outcome, 'kept');
    t.regex(again.reason, /^probation: this build has crashed in probation \(exited with code 5\)/);
    rig.write('good', { code: health('return { status: 4 };') });
    t.is((await unit.reload()).outcome, 'reloaded');
    await rig.until(() => rig.count('answer', { status: 4 }) > 10);
    t.is(rig.count('failure'), 0);
  },
);

test.serial('a plugin that dies while its successor gets ready is healed by it', async (t) => {
  const dying = { toml: healthToml() + idempotent, code: health('return { status: ctx.generation };') };
  const rig = await booted(useSupervisor(t, { dying, caller: caller(4) }));
  const unit = rig.supervisor.unit('test.v1.health');
  rig.write('dying', {
    code: plugin(`if (ctx.generation === 2) await new Promise((resolve) => setTimeout(resolve, 300));
      return { serve: { [HealthDefinition.fullName]: { check: () => ({ status: ctx.generation }), async *watch() {} } } };`),
  });
  const reloading = unit.reload();
  await rig.until(() => unit.starting !== undefined);
  await unit.kill('for the test');
  const outcome = await reloading;
  t.is(outcome.outcome, 'restarted', outcome.reason);
  await rig.until(() => rig.count('answer', { status: unit.generation }) > 10);
  t.is(unit.state, 'ready');
});

test.serial('a plugin that has failed is started anew by a reload of mended code', async (t) => {
  const broken = { toml: healthToml(), code: 'throw new Error("x")' };
  const rig = useSupervisor(t, { broken });
  await rig.supervisor.boot();
  const unit = rig.supervisor.unit('test.v1.health');
  t.is(unit.state, 'failed');
  t.regex(unit.reason, /index\.ts:1: x/);
  rig.write('broken', { code: health('return { status: 1 };') });
  t.is((await unit.reload()).outcome, 'restarted');
  t.is(unit.state, 'ready');
});
