/** What calls promise, over real workers: deadlines, cancellation, order, bounds, errors. */
import test from 'ava';
import { caller, type Fixture, health, healthToml, plugin, useSupervisor } from './rig.ts';

const content = (info: string, extra = ''): Fixture => ({
  toml: `api = 1\nid = "test.v1.content"\n${extra}\n[serves."containerd.services.content.v1.Content"]\npublic = true\n`,
  code: plugin(`const none = () => ({}); async function* nothing() {}
    const read = ctx.call(HealthDefinition);
    return { serve: { [ContentDefinition.fullName]: {
      async info(request, call) { ${info} }, update: none, list: nothing, delete: none, read: nothing, status: none, listStatuses: none, write: nothing, abort: none,
    } } };`),
});
const main = (body: string, requires = '"test.v1.health"'): Fixture => ({
  toml: `api = 1\nid = "test.v1.main"\nrequires = [${requires}]\n`,
  code: plugin(`const health = ctx.call(HealthDefinition); const content = ctx.call(ContentDefinition);
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    return { serve: {}, activate() { void (async () => { ${body} })().then(() => ctx.log.info('done'), (error) => ctx.log.info('broken', { error: String(error) })); } };`),
});
/** Works until it is told that nobody waits. */
const works = `
  const timer = setInterval(() => ctx.log.info('work'), 5);
  await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
  clearInterval(timer);
  ctx.log.info('aborted', { at: ctx.id, code: call.signal.reason.code });
  throw call.signal.reason;`;

test.serial('B23 a deadline ends the work of all three plugins that a call has come through', async (t) => {
  const first = {
    toml: healthToml('requires = ["test.v1.content"]'),
    code: health(
      `return (async () => {
        try { await ctx.call(ContentDefinition).info({ digest: service }, call); }
        catch (error) { ctx.log.info('aborted', { at: ctx.id, code: error.code }); throw error; }
        return { status: 1 }; })();`,
    ),
  };
  const { supervisor, until, count, lines } = useSupervisor(t, {
    first,
    second: content(`if (request.digest === 'now') return {}; ${works}`),
    // Not before each has been reached once: what loads then takes its time on a busy machine.
    main: main(`await health.check({ service: 'now' });
      await health.check({ service: 's' }, { timeoutMs: 2000 }).then(() => ctx.log.info('answered'), ({ code }) => ctx.log.info('failed', { code }));
      const late = { deadline: Date.now() - 1 };
      await content.info({ digest: 'late' }, late).catch(({ code }) => ctx.log.info('late', { code }));`),
  });
  await supervisor.boot();
  await until(() => count('done') === 1 && count('aborted') === 2);
  t.is(count('failed', { code: 'DeadlineExceeded' }), 1);
  t.is(count('late', { code: 'DeadlineExceeded' }), 1);
  // In the middle its own clock runs out first, or that of the one behind it, which answers so, or the caller's, which cancels.
  t.is(count('aborted', { code: 'DeadlineExceeded' }) + count('aborted', { code: 'Canceled' }), 2);
  // Nothing works on: no line comes after the last abort but those of another's.
  const ended = lines.findLastIndex(({ message }) => message === 'aborted');
  t.is(lines.slice(ended).filter(({ message }) => message === 'work').length, 0);
});

test.serial('B24 ten thousand calls are cancelled at any moment, and no table has anything left of them', async (t) => {
  const slow = {
    toml: healthToml(),
    code: health(
      `return service === 'now' ? { status: 1 } : new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, 20, { status: 1 });
        call.signal.addEventListener('abort', () => { clearTimeout(timer); reject(call.signal.reason); });
      });`,
    ),
  };
  const { supervisor, until, count } = useSupervisor(t, {
    slow,
    main: main(`let canceled = 0; let answered = 0; let late = 0;
      const one = async (n) => {
        const abort = new AbortController(); let over = false;
        const moment = n % 4;
        const cancel = () => { abort.abort(new Failure('Canceled', 'enough')); };
        if (moment === 0) cancel(); else if (moment === 1) queueMicrotask(cancel); else setTimeout(cancel, n % 25);
        try { await health.check({ service: n % 3 === 0 ? 'now' : 'n' + n }, { signal: abort.signal }); answered++; if (abort.signal.aborted && moment === 0) late++; }
        catch (error) { if (error.code !== 'Canceled') throw error; canceled++; }
      };
      for (let n = 0; n < 10000; n += 500) await Promise.all(Array.from({ length: 500 }, (_, each) => one(n + each)));
      await pause(50);
      ctx.log.info('tally', { sum: canceled + answered, late });`),
  });
  await supervisor.boot();
  await until(() => count('done') + count('broken') === 1);
  t.is(count('broken'), 0);
  t.is(count('tally', { sum: 10000 }), 1);
  t.is(count('tally', { late: 0 }), 1, 'an answer was delivered after its cancel');
  t.is((await supervisor.unit('test.v1.main').stats())?.pending, 0);
  const callee = await supervisor.unit('test.v1.health').stats();
  t.deepEqual([callee?.running, callee?.brief, callee?.queued], [0, 0, 0]);
});

test.serial(
  'B27 of more calls than a plugin takes the rest is refused at once, and those that were taken are answered',
  async (t) => {
    const full = {
      toml: healthToml(),
      code: health(
        `if (service === 'go') { for (const each of waiting.splice(0)) each({ status: 1 }); return { status: 2 }; }
      return new Promise((resolve) => waiting.push(resolve));`,
      ).replace('return {', 'const waiting = []; return {'),
    };
    const { supervisor, until, count, lines } = useSupervisor(t, {
      full,
      main: main(`await health.check({ service: 'go' });
      let refused = 0; let answered = 0; let text = '';
      const all = Promise.all(Array.from({ length: 8192 }, (_, n) => health.check({ service: 'n' + n }).then(() => answered++, (error) => { if (error.code !== 'ResourceExhausted') throw error; refused++; text = error.message; })));
      while (refused < 4096) await pause(5);
      ctx.log.info('refused', { refused, answered, text });
`),
    });
    await supervisor.boot();
    await until(() => count('done') + count('broken') === 1);
    t.is(count('broken'), 0);
    t.is(count('refused', { refused: 4096 }), 1);
    t.is(count('refused', { answered: 0 }), 1);
    t.regex(
      String(lines.find(({ message }) => message === 'refused')?.fields.text),
      /4096 calls are running, try again/,
    );
    t.is((await supervisor.unit('test.v1.health').stats())?.running, 4096);
  },
);

test.serial('B29 calls of one caller are begun in the order in which they were made, across reloads', async (t) => {
  const counting = {
    toml: healthToml(),
    code: health(
      `if (Number(service) !== next) ctx.log.info('disorder', { got: Number(service), next, generation: ctx.generation }); next = Number(service) + 1; return { status: ctx.generation };`,
      `activate(state) { next = state?.next ?? 0; }, suspend() { return { next }; },`,
    ).replace('return {', 'let next = 0; return {'),
  };
  const rig = useSupervisor(t, {
    counting,
    main: main(`let n = 0; const open = new Set();
      while (!ctx.signal.aborted) {
        while (open.size < 64) { const call = health.check({ service: String(n++) }).then(({ status }) => { open.delete(call); ctx.log.info('answer', { status }); }, (error) => { open.delete(call); if (!ctx.signal.aborted) ctx.log.info('failure', { error: String(error) }); }); open.add(call); }
        await Promise.race(open);
      }`),
  });
  await rig.supervisor.boot();
  await rig.supervisor.settled;
  const unit = rig.supervisor.unit('test.v1.health');
  for (let reload = 2; reload < 17; reload++) {
    t.is((await unit.reload({ force: true })).outcome, 'reloaded');
    await rig.until(() => rig.count('answer', { status: reload }) > 100);
  }
  t.is(rig.count('failure'), 0);
  t.deepEqual(
    rig.lines.filter(({ message }) => message === 'disorder').map(({ fields }) => fields),
    [],
  );
});

test.serial(
  'B30 a failure comes over two hops with its code, its text and its details, and its stack stays in the log',
  async (t) => {
    const { supervisor, until, count, lines } = useSupervisor(t, {
      second: content(
        `if (request.digest === 'known') throw new Failure('OutOfRange', 'offset 3 of 2: out of range', { details: new Uint8Array([1, 2, 3]) });
       throw new TypeError('secret place');`,
      ),
      first: {
        toml: healthToml('requires = ["test.v1.content"]'),
        code: health(`return ctx.call(ContentDefinition).info({ digest: service }, call).then(() => ({ status: 1 }));`),
      },
      main: main(
        `for (const service of ['known', 'other']) await health.check({ service }).catch((error) => ctx.log.info('caught', { what: [error.code, error.message, [...(error.details ?? [])].join(','), /index\\.ts/.test(error.message)].join('|') }));`,
      ),
    });
    await supervisor.boot();
    await until(() => count('done') + count('broken') === 1);
    t.deepEqual(
      lines.filter(({ message }) => message === 'caught').map(({ fields }) => fields.what),
      ['OutOfRange|offset 3 of 2: out of range|1,2,3|false', 'Unknown|secret place||false'],
    );
    t.regex(
      String(lines.find(({ message }) => message === 'call failed')?.fields.error),
      /TypeError: secret place\n +at .*index\.ts/,
    );
  },
);

test.serial(
  'B31 a call that is traced is so in every plugin that it comes through, and one that is not costs none',
  async (t) => {
    const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const { supervisor, until, count } = useSupervisor(t, {
      second: content(`ctx.log.info('second', { trace: call.trace }); return { info: undefined };`),
      first: {
        toml: healthToml('requires = ["test.v1.content"]'),
        code: health(
          `ctx.log.info('first', { trace: call.trace }); return ctx.call(ContentDefinition).info({ digest: 'd' }, call).then(() => ({ status: 1 }));`,
        ),
      },
      main: main(`await health.check({ service: 's' }, { trace: '${trace}' }); await health.check({ service: 's' });`),
    });
    await supervisor.boot();
    await until(() => count('done') + count('broken') === 1);
    for (const each of ['first', 'second'])
      t.deepEqual([count(each, { trace }), count(each, { trace: '' })], [1, 1], each);
    const stats = await supervisor.unit('test.v1.content').stats();
    t.is(stats?.methods[0]?.calls, 2);
  },
);

test.serial(
  'B18 a reload of a provider leaves its users as they are, and several plugins flip together or not at all',
  async (t) => {
    const rig = useSupervisor(t, {
      second: content(`return { info: { digest: String(ctx.generation), size: 0n, labels: {} } };`),
      first: {
        toml: healthToml('requires = ["test.v1.content"]'),
        code: health(
          `return ctx.call(ContentDefinition).info({ digest: service }, call).then(({ info }) => ({ status: ctx.generation * 10 + Number(info.digest) }));`,
        ),
      },
      caller: caller(16, 0),
    });
    const { supervisor } = rig;
    await supervisor.boot();
    await supervisor.settled;
    t.is((await supervisor.unit('test.v1.content').reload({ force: true })).outcome, 'reloaded');
    await rig.until(() => rig.count('answer', { status: 12 }) > 20);
    t.is(supervisor.unit('test.v1.health').generation, 1);
    const both = ['test.v1.content', 'test.v1.health'];
    t.deepEqual(
      (await supervisor.reloadTogether(both, { force: true })).map(({ outcome }) => outcome),
      ['reloaded', 'reloaded'],
    );
    await rig.until(() => rig.count('answer', { status: 23 }) > 20);
    rig.write('first', { code: 'throw new Error("no")' });
    t.deepEqual(
      (await supervisor.reloadTogether(both, { force: true })).map(({ outcome }) => outcome),
      ['kept', 'kept'],
    );
    const before = rig.count('answer', { status: 23 });
    await rig.until(() => rig.count('answer', { status: 23 }) > before + 20);
    t.is(rig.count('failure'), 0);
  },
);
