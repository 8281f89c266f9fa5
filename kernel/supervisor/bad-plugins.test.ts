/** Plugins that break every rule there is, in real workers: the others do not notice, and the kernel says what happened. */
import test from 'ava';
import { caller, health, healthToml, plugin, useSupervisor } from './rig.ts';

const bystander = {
  toml: 'api = 1\nid = "test.v1.bystander"\nrequires = ["test.v1.other"]\n',
  code: plugin(`const content = ctx.call(ContentDefinition);
    const loop = async () => { while (!ctx.signal.aborted) {
      try { await content.info({ digest: 'x' }); ctx.log.info('well'); } catch (error) { if (!ctx.signal.aborted) ctx.log.info('harmed', { error }); }
      await new Promise((resolve) => setTimeout(resolve, 1));
    } };
    return { serve: {}, activate() { for (let each = 0; each < 8; each++) void loop(); } };`),
};
const other = {
  toml: 'api = 1\nid = "test.v1.other"\n[serves."containerd.services.content.v1.Content"]\npublic = true\n',
  code: plugin(`const none = () => ({}); async function* nothing() {}
    return { serve: { [ContentDefinition.fullName]: {
      info: () => ({ info: undefined }), update: none, list: nothing, delete: none, read: nothing, status: none, listStatuses: none, write: nothing, abort: none,
    } } };`),
};

/** Its code gets hold of the port that answers go through. */
const onPort = (what: string) => `
  const { MessagePort } = await import('node:worker_threads');
  const post = MessagePort.prototype.postMessage;
  let told = false;
  MessagePort.prototype.postMessage = function (message, transfer) {
    if (told || ctx.generation !== 1 || !(message?.b instanceof Uint8Array) || message.b.length < 8) return post.call(this, message, transfer);
    told = true;
    const again = { p: message.p, b: new Uint8Array(message.b) };
    const garbage = (b) => post.call(this, b);
    ${what}
    ctx.log.info('posted');
  };`;

for (const [what, deed] of [
  ['no message at all', `garbage(null); garbage(undefined); garbage(7); post.call(this, message, transfer);`],
  [
    'no batch',
    `garbage({}); garbage({ p: 9, b: new Uint8Array(3) }); garbage({ p: 1 }); garbage({ p: 1, b: 'text' }); post.call(this, message, transfer);`,
  ],
  [
    'bytes that are no frames',
    `garbage({ p: 1, b: new Uint8Array(64).fill(255) }); post.call(this, message, transfer);`,
  ],
  [
    'a frame that says it is a gigabyte',
    `const b = new Uint8Array(16); new DataView(b.buffer).setUint32(4, 2 ** 30, true); garbage({ p: 1, b }); post.call(this, message, transfer);`,
  ],
  [
    'answers twice',
    `post.call(this, message, transfer); garbage(again); garbage({ p: 1, b: new Uint8Array(again.b) });`,
  ],
  [
    'a slab that is none',
    `garbage({ slab: 'here' }); garbage({ slab: new SharedArrayBuffer(3) }); post.call(this, message, transfer);`,
  ],
] as const) {
  test.serial(`B7 a plugin that posts ${what} on its port harms nobody, and calls of it are answered`, async (t) => {
    const garbage = {
      toml: healthToml(),
      code: plugin(`${onPort(deed)}
        return { serve: { [HealthDefinition.fullName]: { check: () => ({ status: ctx.generation }), async *watch() {} } } };`),
    };
    const rig = useSupervisor(t, { garbage, caller: caller(4), other, bystander });
    await rig.supervisor.boot();
    await rig.until(() => rig.count('posted') === 1);
    // Whether its generation is ended for it or not: calls are answered, those that were in flight may have failed.
    const before = rig.count('answer');
    await rig.until(() => rig.count('answer') > before + 50);
    await rig.until(() => rig.count('well') > 50);
    t.true(rig.count('failure') <= 4, `${rig.count('failure')} calls failed`);
    t.is(rig.count('harmed'), 0);
    for (const id of ['test.v1.caller', 'test.v1.other', 'test.v1.bystander'])
      t.is(rig.supervisor.unit(id).generation, 1, id);
    t.deepEqual(rig.fatal, []);
  });
}

test.serial(
  'B11 F5 an endless loop is told of with its file and line, others go on, and it is ended and replaced',
  async (t) => {
    const looping = {
      toml: healthToml(),
      code: health(
        `if (ctx.generation === 1 && service === 'n5') spinning(); return { status: ctx.generation };`,
      ).replace(
        'export default',
        'const seen = new Set(); function spinning() { for (let n = 0; ; n++) seen.add(String(n % 1000)); }\nexport default',
      ),
    };
    const rig = useSupervisor(
      t,
      { looping, caller: caller(4), other, bystander },
      { unresponsiveMs: 1000, killMs: 12_000 },
    );
    await rig.supervisor.boot();
    await rig.until(() => rig.count('answer', { status: 2 }) > 10);
    const told = rig.incidents.find((each) => each.t === 'unresponsive' && each.plugins.includes('test.v1.health'));
    t.true(told?.t === 'unresponsive');
    if (told?.t !== 'unresponsive') return;
    t.regex(told.hot.profile.join('\n'), /looping\/index\.ts:\d+/);
    t.is(rig.count('failure'), 1);
    t.is(rig.count('harmed'), 0);
    t.is(rig.supervisor.unit('test.v1.other').generation, 1);
  },
);

for (const [shape, fill] of [
  ['objects', `for (;;) held.push({ text: 'x'.repeat(32) + held.length });`],
  ['a map', `const map = new Map(); for (let n = 0; ; n++) map.set('key' + n, [n]);`],
  [
    'buffers',
    `const more = () => { held.push(Buffer.alloc(8 << 20, 1)); setImmediate(more); }; more(); await new Promise(() => {});`,
  ],
  [
    'promises',
    `const more = () => { for (let n = 0; n < 10000; n++) held.push(new Promise(() => {})); setImmediate(more); }; more(); await new Promise(() => {});`,
  ],
  [
    'timers',
    `const more = () => { for (let n = 0; n < 10000; n++) held.push(setTimeout(() => {}, 1e6)); setImmediate(more); }; more(); await new Promise(() => {});`,
  ],
] as const) {
  test.serial(`B12 F7 a plugin that allocates ${shape} without end is ended, and the daemon is the same`, async (t) => {
    const hoarding = {
      toml: healthToml('limits = { soft_mb = 96, hard_mb = 2048 }'),
      code: health(
        `return (async () => { if (ctx.generation === 1 && service === 'n5') { ${fill} } return { status: ctx.generation }; })();`,
      ).replace('return {', 'const held = []; return {'),
    };
    const rig = useSupervisor(t, { hoarding, caller: caller(4), other, bystander });
    await rig.supervisor.boot();
    await rig.until(() => rig.count('answer', { status: 2 }) > 10);
    const ended = rig.incidents.find((each) => each.t === 'ended');
    t.regex(ended?.t === 'ended' ? ended.reason : '', /^it holds \d+ MB, its limit is 96 MB$/);
    t.true(rig.count('failure') >= 1 && rig.count('failure') <= 4);
    t.is(rig.count('harmed'), 0);
    t.deepEqual(rig.fatal, []);
  });
}

test.serial('F9 a plugin that dies again and again is given up, and who calls it is told so', async (t) => {
  const dying = {
    toml: `${healthToml()}[backoff]\nrestarts = 3\nmin = "0ms"\nmax = "10ms"\n`,
    code: health(`process.exit(1);`),
  };
  const rig = useSupervisor(t, { dying, caller: caller(1), other, bystander });
  await rig.supervisor.boot();
  await rig.until(() => rig.supervisor.unit('test.v1.health').state === 'failed');
  await rig.until(() =>
    rig.lines.some(({ fields }) => /has failed: more than 3 restarts/.test(String(fields.message))),
  );
  t.regex(rig.supervisor.unit('test.v1.health').reason, /^more than 3 restarts in .* s: exited with code 1$/);
  t.is(rig.count('harmed'), 0);
});
