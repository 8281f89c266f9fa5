/**
 * What changes while the daemon runs: a plugin whose folder holds something new, and a config file that says something new. Everything is read and planned
 * completely before anything is touched, so what is wrong with it changes nothing; and what fails half-way is taken back.
 */
import { isDeepStrictEqual } from 'node:util';
import type { ConfigChange, ReloadConfigResponse } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import type { GlobalFlags } from '../cli/index.ts';
import { type Prepared, prepare } from '../cli/plan.ts';
import { type ConfigChanges, configChanges } from '../config/changes.ts';
import { type Config, pluginConfigs, ProblemsError, renderProblem } from '../config/index.ts';
import type { Logger } from '../log.ts';
import {
  kernelContracts,
  loadManifest,
  type Manifest,
  type Plan,
  plan as planOf,
  stateProblem,
  withProxies,
} from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import type { Redeploy } from '../supervisor/kernel-service.ts';
import type { Supervisor } from '../supervisor/supervisor.ts';
import type { ReloadOutcome } from '../supervisor/reload.ts';
import { applyChanges } from './apply-changes.ts';

/** A config that everything is right with. */
export interface Deployed extends Prepared {
  readonly plan: Plan;
}

export interface RedeployOptions {
  readonly flags: GlobalFlags;
  readonly supervisor: Supervisor;
  readonly logger: Logger;
  /** Does what of the daemon's own settings can be done while it runs; those not in `live` take a restart. */
  readonly set: (config: Config) => void;
}

/** Keys that take effect at once. Sockets, directories, limits of the front and time limits of calls are given to threads when they start. */
const live = ['debug.level', 'oom_score', 'kernel.plugin_dirs', 'required_plugins'];

export class Redeployer implements Redeploy {
  readonly #options: RedeployOptions;
  /** What runs, and from what. */
  #deployed: Deployed;
  /** Plugins that keep records, as of the start: their tables were made then. */
  readonly #recorded: ReadonlySet<string>;
  #busy: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(deployed: Deployed, options: RedeployOptions) {
    this.#deployed = deployed;
    this.#options = options;
    this.#recorded = new Set(deployed.manifests.filter(({ records }) => records.prefix !== '').map(({ id }) => id));
  }

  /** Folders that are looked at for plugins of others, and those with something wrong in them. */
  get deployed(): Deployed {
    return this.#deployed;
  }

  /** Nothing is changed any more: what stops must not be started again. */
  close(): void {
    this.#closed = true;
  }

  reload(id: string, force: boolean): Promise<ReloadOutcome> {
    this.#open();
    const unit = this.#unit(id);
    const { file } = unit.manifest;
    let manifest: Manifest;
    try {
      manifest = this.#read(unit.manifest);
      if (manifest.id !== unit.id)
        throw new ProblemsError([{ file, message: `id is ${manifest.id} now, not ${unit.id}` }]);
    } catch (error) {
      if (!(error instanceof ProblemsError)) throw error;
      return Promise.resolve(kept(unit.generation, error.message));
    }
    if (unit.serving !== undefined && isDeepStrictEqual(manifest, unit.manifest)) return unit.reload({ force });
    return this.#exclusively(() => this.#reloadWith(id, manifest, force));
  }

  /** @throws Failure Unavailable when the daemon stops */
  #open(): void {
    if (this.#closed) throw new Failure('Unavailable', 'the daemon stops: unavailable');
  }

  /** @throws Failure NotFound, which says more of one that was left out */
  #unit(id: string) {
    const left = this.#deployed.leftOut.find((each) => each.id === id);
    if (left === undefined || this.#deployed.plan.manifests.has(id)) return this.#options.supervisor.unit(id);
    const text = `plugin ${id} is left out (${left.reason}); a reload of the config looks again: failed precondition`;
    throw new Failure('FailedPrecondition', text);
  }

  #read(manifest: Manifest): Manifest {
    const { config } = this.#deployed;
    const fresh = loadManifest(manifest.dir);
    if (fresh.proxies === undefined) return fresh;
    return withProxies([fresh], config).proxies.find(({ id }) => id === manifest.id) ?? manifest;
  }

  /** With a manifest that says something new, which has to fit the others. */
  async #reloadWith(id: string, manifest: Manifest, force: boolean): Promise<ReloadOutcome> {
    const { supervisor } = this.#options;
    const unit = this.#unit(id);
    const before = this.#deployed;
    const manifests = before.manifests.map((each) => (each.id === manifest.id ? manifest : each));
    const planned = planOf(manifests, {
      provided: kernelContracts,
      disabled: before.config.disabledPlugins,
      required: before.config.requiredPlugins,
      leftOut: before.leftOut,
    });
    const configs = pluginConfigs(before.config, manifests);
    const handover = unit.serving === undefined ? undefined : stateProblem(unit.manifest, manifest);
    const problems = [
      ...(planned.ok ? [] : planned.problems),
      ...configs.problems,
      ...(handover === undefined ? [] : [handover]),
    ];
    // The front is in no plan.
    const isPlanned = before.plan.manifests.has(manifest.id);
    if (!planned.ok || problems.length > 0) return kept(unit.generation, new ProblemsError(problems).message);
    const config = isPlanned ? { config: configs.values.get(manifest.id)! } : {};
    const outcome = await (unit.serving === undefined
      ? this.#startWith(id, manifest, config.config)
      : unit.reload({ force, manifest, ...config }));
    if (outcome.outcome === 'kept' || !isPlanned) return outcome;
    this.#deployed = { ...before, manifests, pluginConfigs: configs, plan: planned };
    supervisor.replan({ plan: planned, configs: configs.values, threads: configs.threads });
    return outcome;
  }

  /** One that does not run: there is nothing to hand over, and nothing to go back to. */
  async #startWith(
    id: string,
    manifest: Manifest,
    config: Record<string, unknown> | undefined,
  ): Promise<ReloadOutcome> {
    const began = performance.now();
    const unit = this.#unit(id);
    unit.manifest = manifest;
    if (config !== undefined) unit.config = config;
    await unit.start();
    const { generation, state, reason } = unit;
    const totalMs = performance.now() - began;
    if (state === 'ready') return { generation, holdMs: 0, totalMs, outcome: 'restarted', reason: '' };
    return { ...kept(generation, `${state}: ${reason}`), totalMs };
  }

  reloadConfig(dryRun: boolean): Promise<ReloadConfigResponse> {
    return this.#exclusively(async () => {
      await this.#options.supervisor.settled;
      const response = await this.#reloadConfig(dryRun);
      const { logger } = this.#options;
      for (const problem of response.problems) logger.write('error', 'config is not reloaded', { problem });
      if (!dryRun && response.outcome !== 'refused')
        logger.write('info', 'config reloaded', {
          outcome: response.outcome,
          changes: response.changes.map(({ subject, action }) => `${action} ${subject}`).join(', '),
        });
      return response;
    });
  }

  async #reloadConfig(dryRun: boolean): Promise<ReloadConfigResponse> {
    const before = this.#deployed;
    let after: Deployed;
    try {
      after = this.#prepared();
    } catch (error) {
      if (!(error instanceof ProblemsError)) throw error;
      return response('refused', [], error.problems.map(renderProblem));
    }
    const wanted = configChanges(before, after);
    const changes = this.#described(wanted, before, after);
    const unread = wanted.reload.flatMap(
      (id) => stateProblem(before.plan.manifests.get(id)!, after.plan.manifests.get(id)!) ?? [],
    );
    if (unread.length > 0) return response('refused', changes, unread.map(renderProblem));
    const impossible = changes
      .filter(({ action }) => action === 'restart')
      .map(({ subject }) => `${subject}: only a restart of the daemon changes it`);
    if (impossible.length > 0) return response('refused', changes, impossible);
    if (dryRun) return response(changes.length === 0 ? 'unchanged' : 'planned', changes);
    if (changes.length > 0) {
      try {
        await applyChanges(this.#options.supervisor, before, after, wanted);
      } catch (error) {
        return response('refused', changes, [
          `${Failure.from(error).message}; what had been changed has been changed back`,
        ]);
      }
      this.#options.set(after.config);
    }
    this.#deployed = after;
    return response(changes.length === 0 ? 'unchanged' : 'done', changes);
  }

  /** @throws ProblemsError */
  #prepared(): Deployed {
    const { plan, problems, ...rest } = prepare(this.#options.flags);
    // What was wrong at the start already is no reason; what is new would stop a plugin that runs, or not start one that is wanted.
    const known = this.#deployed.leftOut.map(({ reason }) => reason);
    const broken = rest.leftOut.filter(({ reason }) => !known.includes(reason)).flatMap((left) => left.problems);
    if (!plan.ok || problems.length > 0 || broken.length > 0) throw new ProblemsError([...problems, ...broken]);
    return { ...rest, plan, problems };
  }

  /** In the order in which it is done. */
  #described(wanted: ConfigChanges, before: Deployed, after: Deployed): ConfigChange[] {
    const change = (action: string) => (subject: string) => ({ subject, action });
    const tables = wanted.start.filter(
      (id) => after.plan.manifests.get(id)!.records.prefix !== '' && !this.#recorded.has(id),
    );
    const migrated = wanted.reload.filter((id) => {
      const [old, next] = [before, after].map(({ plan }) => plan.manifests.get(id)!.records.prefix);
      return old !== next;
    });
    const settings = wanted.settings.map((key) => ({ subject: key, action: live.includes(key) ? 'set' : 'restart' }));
    return [
      ...[...tables, ...migrated].map(change('restart')),
      ...wanted.rethread.map((id) => ({ subject: `plugins."${id}".thread`, action: 'restart' })),
      ...wanted.start.filter((id) => !tables.includes(id)).map(change('start')),
      ...wanted.reconfigure.map(change('configure')),
      ...wanted.reload.filter((id) => !migrated.includes(id)).map(change('reload')),
      ...settings,
      ...wanted.stop.map(change('stop')),
    ];
  }

  /** One change at a time: each begins from what the one before has made. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#busy.then(async () => {
      // Signals come in crowds, and reading a config is work: the loop turns between two.
      await new Promise((resolve) => setImmediate(resolve));
      this.#open();
      return work();
    });
    this.#busy = turn.catch(() => undefined);
    return turn;
  }
}

function kept(generation: number, reason: string): ReloadOutcome {
  return { generation, holdMs: 0, totalMs: 0, outcome: 'kept', reason };
}

const headings: Readonly<Record<string, string>> = {
  unchanged: 'nothing has changed',
  planned: 'a reload would',
  done: 'reloaded',
  refused: 'refused, nothing is changed',
};

function response(
  outcome: string,
  changes: readonly ConfigChange[],
  problems: readonly string[] = [],
): ReloadConfigResponse {
  const lines = [headings[outcome]!, ...problems.map((each) => `  ${each}`)];
  if (outcome !== 'refused') lines.push(...changes.map(({ subject, action }) => `  ${action.padEnd(9)} ${subject}`));
  return { outcome, changes: [...changes], problems: [...problems], text: `${lines.join('\n')}\n` };
}
