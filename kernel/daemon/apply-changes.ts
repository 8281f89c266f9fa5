/** A changed config brought about: all of it, or, when a plugin does not take it, none. */
import type { ConfigChanges, ConfigState } from '../config/changes.ts';
import type { Plan, Route } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';

/**
 * Starts what is new, then changes what stays, then stops what goes: until the last step everything can be taken back, and the last cannot fail.
 * @throws Failure with what did not take it, after all is as it was
 */
export async function applyChanges(
  supervisor: Supervisor,
  before: ConfigState,
  after: ConfigState,
  wanted: ConfigChanges,
): Promise<void> {
  supervisor.replan(both(before, after, wanted));
  const undo: (() => Promise<unknown>)[] = [];
  try {
    for (const id of wanted.start) {
      undo.push(() => supervisor.unit(id).stop('the config is not changed after all'));
      await startOne(supervisor, after.plan, id);
    }
    for (const id of wanted.reconfigure) {
      undo.push(() => supervisor.unit(id).configure(before.pluginConfigs.values.get(id)!));
      await configureOne(supervisor, id, after.pluginConfigs.values.get(id)!);
    }
    for (const id of wanted.reload) {
      undo.push(() => reloadOne(supervisor, before, id));
      await reloadOne(supervisor, after, id);
    }
  } catch (error) {
    for (const step of undo.reverse()) await step().catch(() => undefined);
    supervisor.replan(replanned(before));
    throw error;
  }
  for (const id of wanted.stop) await supervisor.unit(id).stop('the config does not have it any more');
  supervisor.replan(replanned(after));
}

function replanned({ plan, pluginConfigs }: ConfigState) {
  return { plan, configs: pluginConfigs.values, threads: pluginConfigs.threads };
}

/** For the time in between: what goes is still there, and what comes is there already. */
function both(before: ConfigState, after: ConfigState, wanted: ConfigChanges) {
  const routes = new Map<string, readonly Route[]>(before.plan.routes);
  for (const [contract, providers] of after.plan.routes) {
    const mine = providers.filter(({ plugin }) => wanted.start.includes(plugin));
    const others = routes.get(contract) ?? [];
    // A name or a public contract that changes hands does so at the end.
    const free = mine.filter((route) =>
      others.every((each) => each.name !== route.name && !(each.public && route.public)),
    );
    if (free.length > 0) routes.set(contract, [...others, ...free]);
  }
  const plan: Plan = {
    ...before.plan,
    order: [...before.plan.order, ...wanted.start],
    manifests: new Map([...after.plan.manifests, ...before.plan.manifests]),
    dependencies: new Map([...after.plan.dependencies, ...before.plan.dependencies]),
    routes,
  };
  return {
    plan,
    configs: new Map([...after.pluginConfigs.values, ...before.pluginConfigs.values]),
    threads: new Map([...after.pluginConfigs.threads, ...before.pluginConfigs.threads]),
  };
}

async function startOne(supervisor: Supervisor, plan: Plan, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const missing = (plan.dependencies.get(id) ?? []).find(
    ({ on, kind }) => kind === 'requires' && supervisor.unit(on).state !== 'ready',
  );
  await unit.start(Promise.resolve(missing && `requires ${missing.on}, which is ${supervisor.unit(missing.on).state}`));
  // Of a machine that lacks something for it the config is not to blame.
  if (unit.state !== 'ready' && unit.state !== 'skipped') throw refused(id, unit.reason);
}

async function configureOne(
  supervisor: Supervisor,
  id: string,
  config: Readonly<Record<string, unknown>>,
): Promise<void> {
  const unit = supervisor.unit(id);
  const answer = await unit.configure(config);
  if (answer !== 'live' && answer.outcome !== 'reloaded') throw refused(id, answer.reason);
  // Its config may have been the reason.
  if (unit.state === 'failed') await unit.start();
  if (unit.state === 'failed') throw refused(id, unit.reason);
}

async function reloadOne(supervisor: Supervisor, { plan, pluginConfigs }: ConfigState, id: string): Promise<void> {
  const unit = supervisor.unit(id);
  const manifest = plan.manifests.get(id)!;
  const config = pluginConfigs.values.get(id)!;
  if (unit.serving !== undefined) {
    const { outcome, reason } = await unit.reload({ manifest, config, force: true });
    if (outcome !== 'reloaded') throw refused(id, reason);
    return;
  }
  unit.manifest = manifest;
  unit.config = config;
  if (unit.state === 'failed' || unit.state === 'skipped') await unit.start();
  if (unit.state === 'failed') throw refused(id, unit.reason);
}

function refused(id: string, reason: string): Failure {
  return new Failure('FailedPrecondition', `plugin ${id} does not take it: ${reason}`);
}
