/** Reloads of one plugin under load: real workers. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { caller, type Fixture, health, healthToml, plugin, type Rig, useSupervisor } from './rig.ts';

/** Counts its calls over generations: one that is lost or done twice shows. */
const counting = (toml = ''): Fixture => ({
  toml: healthToml(toml),
  code: health(
    'return { status: ++count };',
    `activate(state) { count = state?.count ?? 0; }, suspend() { return { count }; },`,
  ).replace('return {', 'let count = 0; return {'),
});

async function booted(rig: Rig): Promise<Rig> {
  await rig.supervisor.boot();
  await rig.supervisor.settled;
  // So that its build is known and kept.
  await rig.until(() => rig.supervisor.unit('test.v1.health').build.digest !== undefined);
  return rig;
}

const goesOn = async (rig: Rig, calls = 20) => {
  const before = rig.count('answer');
  await rig.until(() => rig.count('answer') > before + calls);
};

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

/** Subscribes, uploads and downloads, each for longer than several reloads, and says how they ended. */
const streams: Fixture = {
  toml: 'api = 1\nid = "test.v1.streams"\nrequires = ["test.v1.content"]\n',
  code: plugin(`
    const content = ctx.call(ContentDefinition);
    const failed = (what) => (error) => ctx.log.info('broken', { what, error: String(error) });
    const upload = async (n) => {
      async function* parts() { for (let i = 0; i < 60; i++) { yield ContentDefinition.methods.write.requestType.fromPartial({ ref: 'r' + n, offset: BigInt(i), data: new Uint8Array(1000).fill(i) }); await new Promise((r) => setTimeout(r, 10)); } }
      const got = []; for await (const reply of content.write(parts())) got.push(Number(reply.offset));
      ctx.log.info('uploaded', { n, right: got.length === 60 && got.every((each, i) => each === i) });
    };
    const download = async (n) => {
      let next = 0; let right = true;
      for await (const { offset } of content.read({ digest: 'd', offset: 0n, size: 0n })) right &&= Number(offset) === next++;
      ctx.log.info('downloaded', { n, right: right && next === 60 });
    };
    const follow = async (n) => {
      let next = 0; let right = true;
      for await (const { info } of content.list({ filters: [] })) { right &&= info[0].digest === String(next++); if (next === 200) break; }
      ctx.log.info('followed', { n, right: right && next === 200 });
    };
    return { serve: {}, activate() { for (let n = 0; n < 5; n++) {
      upload(n).catch(failed('upload')); download(n).catch(failed('download')); follow(n).catch(failed('follow'));
    } } };`),
};
const content: Fixture = {
  toml: `api = 1\nid = "test.v1.content"
[serves."containerd.services.content.v1.Content"]
public = true
[serves."containerd.services.content.v1.Content".methods.Write]
unbounded = true
[serves."containerd.services.content.v1.Content".methods.Read]
unbounded = true
[serves."containerd.services.content.v1.Content".methods.List]
unbounded = true
on_reload = "migrate"
`,
  code: plugin(`
    const none = () => ({}); const pause = () => new Promise((resolve) => setTimeout(resolve, 10));
    return { serve: { [ContentDefinition.fullName]: {
      info: none, update: none, delete: none, status: none, listStatuses: none, abort: none,
      async *write(requests) { for await (const { offset } of requests) yield ContentDefinition.methods.write.responseType.fromPartial({ offset }); },
      async *read() { for (let i = 0; i < 60; i++) { yield { offset: BigInt(i), data: new Uint8Array(10_000) }; await pause(); } },
      async *list(_request, call) { for (let i = Number(call.resume || -1) + 1; ; i++) { call.cursor(String(i)); yield { info: [{ digest: String(i), size: 0n, labels: {} }] }; await pause(); } },
    } } };`),
};

test.serial(
  'B14 uploads, downloads and subscriptions live through several reloads, complete and in order',
  async (t) => {
    const { supervisor, until, count, lines } = useSupervisor(t, { content, streams });
    await supervisor.boot();
    const unit = supervisor.unit('test.v1.content');
    for (let reload = 0; reload < 4; reload++) {
      const { outcome, reason } = await unit.reload({ force: true });
      t.is(outcome, 'reloaded', reason);
    }
    await until(() => count('uploaded') + count('downloaded') + count('followed') + count('broken') === 15);
    t.deepEqual(
      lines.filter((line) => line.message === 'broken').map((line) => line.fields),
      [],
    );
    for (const how of ['uploaded', 'downloaded', 'followed']) t.is(count(how, { right: true }) >= 5, true, how);
    t.is(
      count('uploaded', { right: false }) + count('downloaded', { right: false }) + count('followed', { right: false }),
      0,
    );
  },
);

test.serial('B14 a generation with streams lives as long as they do, and no longer', async (t) => {
  const { supervisor, until, count } = useSupervisor(t, { content, streams });
  await supervisor.boot();
  const unit = supervisor.unit('test.v1.content');
  const { handle } = unit.serving!;
  await unit.reload({ force: true });
  t.false(handle.gone);
  t.is(unit.draining.size, 1);
  await handle.exited;
  t.is(count('uploaded') + count('downloaded') >= 10 || count('broken') > 0, true);
  await until(() => unit.draining.size === 0);
  t.is(count('broken'), 0);
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
      toml: `${healthToml()}[deadlines]\nstart = "1s"\n`,
      code: plugin('await new Promise(() => {}); return { serve: {} };'),
    },
    /^start: start deadline: its start\(\) has not returned within 1 s/,
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

const idempotent = '[serves."grpc.health.v1.Health".methods.Check]\nidempotent = true\n';

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
