/** For tests: plugins written as strings, under a real supervisor in real workers. Generous with time, since machines that test are busy. */
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { Level } from '../log.ts';
import { loadManifest, loadManifests, plan } from '../plan/index.ts';
import type { Incident } from './incident.ts';
import type { SupervisorOptions } from './options.ts';
import { Supervisor } from './supervisor.ts';
import type { Transition } from './transitions.ts';

// Workers compile what they load; as the launcher does, so that each test does not do it again.
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(new URL('../../.cache/v8', import.meta.url));

export interface Fixture {
  /** Of its manifest, without what all of them have. */
  readonly toml: string;
  /** Text of its index.ts. */
  readonly code: string;
}

export interface RigOptions
  extends Partial<
    Pick<
      SupervisorOptions,
      'unresponsiveMs' | 'killMs' | 'holdMs' | 'stallMs' | 'niceness' | 'threads' | 'configs' | 'clock' | 'makeWorker'
    >
  > {
  readonly required?: readonly string[];
}

/** Of tests that run. One that never ends goes with its process, without its teardown. */
const directories = new Set<string>();
process.once('exit', () => {
  for (const dir of directories) rmSync(dir, { recursive: true, force: true });
});

/** Of these only the first ten thousand are kept. */
const frequent = new Set(['answer', 'well']);

export interface Line {
  readonly level: Level;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

/** A plugin whose `start` is this. */
export const plugin = (body: string): string => `
import { definePlugin, Failure, skip } from 'troupe/plugin';
import { HealthDefinition } from 'troupe/proto/grpc/health/v1/health.ts';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
export default definePlugin({ async start(ctx) { ${body} } });
`;

/** A plugin that serves Health with these bodies of `check` and `watch`. */
export const health = (check: string, rest = '', watch = ''): string =>
  plugin(`return {
    serve: { [HealthDefinition.fullName]: { check({ service }, call) { ${check} }, async *watch(_request, call) { ${watch} } } },
    ${rest}
  };`);

export const healthToml = (extra = ''): string =>
  `api = 1\nid = "test.v1.health"\n${extra}\n[serves."grpc.health.v1.Health"]\npublic = true\n`;

/** Calls Health as fast as it can, `inFlight` at a time, and tells each answer's status in its log; never twice the same call. */
export const caller = (inFlight = 1, pauseMs = 2): Fixture => ({
  toml: 'api = 1\nid = "test.v1.caller"\nrequires = ["test.v1.health"]\n',
  code: plugin(`
    const health = ctx.call(HealthDefinition);
    let n = 0;
    const loop = async () => {
      while (!ctx.signal.aborted) {
        const service = 'n' + n++;
        try { const { status } = await health.check({ service }); ctx.log.info('answer', { status }); }
        catch (error) { if (!ctx.signal.aborted) ctx.log.info('failure', { code: error.code, message: error.message }); }
        ${pauseMs > 0 ? `await new Promise((resolve) => setTimeout(resolve, ${pauseMs}));` : ''}
      }
    };
    return { serve: {}, activate() { for (let each = 0; each < ${inFlight}; each++) void loop(); } };`),
});

/** Counts its calls over generations: one that is lost or done twice shows. */
export const counting = (toml = ''): Fixture => ({
  toml: healthToml(toml),
  code: health(
    'return { status: ++count };',
    `activate(state) { count = state?.count ?? 0; }, suspend() { return { count }; },`,
  ).replace('return {', 'let count = 0; return {'),
});

/** Of its manifest: its calls may be made again. */
export const idempotent = '[serves."grpc.health.v1.Health".methods.Check]\nidempotent = true\n';

export interface Rig {
  readonly supervisor: Supervisor;
  readonly transitions: Transition[];
  readonly incidents: Incident[];
  readonly lines: Line[];
  readonly fatal: string[];
  readonly gaveUp: string[];
  readonly dir: string;
  /** Resolves when something has happened that makes it true. */
  until(condition: () => boolean): Promise<void>;
  /** Lines with this message, and this value of one field. */
  count(message: string, field?: Record<string, unknown>): number;
  /** States that a plugin went to. */
  states(id: string): string[];
  /** Writes a fixture's files again. */
  write(name: string, change: Partial<Fixture>): void;
}

export function useSupervisor(
  t: ExecutionContext,
  fixtures: Readonly<Record<string, Fixture>>,
  options: RigOptions = {},
): Rig {
  t.timeout(300_000);
  const dir = mkdtempSync(join(scratch(), 'troupe-supervisor-'));
  directories.add(dir);
  const write = (name: string, { toml, code }: Partial<Fixture>) => {
    mkdirSync(join(dir, name), { recursive: true });
    const deadlines = toml?.includes('[deadlines]') === true ? '' : '\n[deadlines]\nstart = "100s"\nstop = "30s"\n';
    if (toml !== undefined) writeFileSync(join(dir, name, 'plugin.toml'), `${toml}${deadlines}`);
    if (code !== undefined) writeFileSync(join(dir, name, 'index.ts'), code);
  };
  const front: Fixture = { toml: 'api = 1\nid = "test.v1.front"\n', code: plugin('return { serve: {} };') };
  for (const [name, fixture] of Object.entries({ ...fixtures, front })) write(name, fixture);
  const { manifests, problems } = loadManifests(dir);
  t.deepEqual(problems, []);
  const planned = plan(
    manifests.filter((manifest) => manifest.id !== 'test.v1.front'),
    { required: options.required ?? [] },
  );
  if (!planned.ok) throw new Error(planned.problems.map((problem) => problem.message).join('; '));
  const transitions: Transition[] = [];
  const incidents: Incident[] = [];
  const lines: Line[] = [];
  const fatal: string[] = [];
  const gaveUp: string[] = [];
  const waiters = new Set<{ condition: () => boolean; resolve: () => void }>();
  let scheduled = false;
  // Once a turn: loads log by the thousand.
  const check = () => {
    scheduled = false;
    for (const waiter of [...waiters]) {
      if (!waiter.condition()) continue;
      waiters.delete(waiter);
      waiter.resolve();
    }
  };
  const heard = () => {
    if (!scheduled) setImmediate(check);
    scheduled = true;
  };
  // Some of what is waited for makes no event.
  const poll = setInterval(check, 20);
  const note =
    <T>(list: T[]) =>
    (item: T) => {
      list.push(item);
      heard();
    };
  const tally = new Map<string, number>();
  const counted = (key: string) => tally.set(key, (tally.get(key) ?? 0) + 1);
  const line = note(lines);
  const logged = (level: Level, message: string, fields: Readonly<Record<string, unknown>> = {}) => {
    counted(message);
    for (const [name, value] of Object.entries(fields)) counted(`${message}\0${name}\0${String(value)}`);
    if (!frequent.has(message) || (tally.get(message) ?? 0) < 10_000) line({ level, message, fields: { ...fields } });
    else heard();
    if (process.env.RIG_LOG !== undefined && !frequent.has(message))
      console.error(level, message, JSON.stringify(fields));
  };
  const supervisor = new Supervisor({
    configs: new Map(),
    threads: new Map(),
    unresponsiveMs: 120_000,
    killMs: 0,
    holdMs: 60_000,
    stallMs: 0,
    ...options,
    plan: planned,
    first: planned.order,
    front: { manifest: loadManifest(join(dir, 'front')), config: {} },
    daemon: {
      address: '',
      ttrpcAddress: '',
      publishBinary: '',
      root: join(dir, '.root'),
      state: join(dir, '.state'),
      version: '',
      revision: '',
      pid: process.pid,
    },
    timeouts: {},
    logger: { enabled: () => true, write: logged },
    fatal: note(fatal),
    giveUp: note(gaveUp),
  });
  supervisor.onTransition(note(transitions));
  supervisor.onIncident(note(incidents));
  t.teardown(async () => {
    clearInterval(poll);
    try {
      await supervisor.stop();
    } finally {
      rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
      directories.delete(dir);
    }
  });
  return {
    supervisor,
    transitions,
    incidents,
    lines,
    fatal,
    gaveUp,
    dir,
    write,
    until: (condition) =>
      condition() ? Promise.resolve() : new Promise<void>((resolve) => waiters.add({ condition, resolve })),
    count: (message, field = {}) => {
      const [[name, value] = [undefined, undefined]] = Object.entries(field);
      return tally.get(name === undefined ? message : `${message}\0${name}\0${String(value)}`) ?? 0;
    },
    states: (id) => transitions.filter((each) => each.slot === id).map((each) => each.to),
  };
}

/** Started, with all that it has going. */
export async function booted(rig: Rig): Promise<Rig> {
  // What was written in the very millisecond in which a generation is made may be newer than it, and its build would never be known.
  for (const written = Date.now(); Date.now() === written; );
  await rig.supervisor.boot();
  await rig.supervisor.settled;
  // So that its build is known and kept.
  await rig.until(() => rig.supervisor.unit('test.v1.health').build.digest !== undefined);
  return rig;
}

/** Resolves when so many more calls have been answered. */
export const goesOn = async (rig: Rig, calls = 20) => {
  const before = rig.count('answer');
  await rig.until(() => rig.count('answer') > before + calls);
};

function scratch(): string {
  return statSync('/dev/shm', { throwIfNoEntry: false })?.isDirectory() ? '/dev/shm' : tmpdir();
}
