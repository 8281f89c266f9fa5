/** `plan`, and the loading of everything that a plan is made from, which the daemon's start shares. */
import { type Config, loadConfig, type PluginConfigs, type Problem, pluginConfigs } from '../config/index.ts';
import {
  kernelContracts,
  type LeftOut,
  loadManifests,
  type Manifest,
  type Plan,
  type PlanOptions,
  planWithout,
  type Refused,
  renderPlan,
  withProxies,
} from '../plan/index.ts';
import type { GlobalFlags } from './arguments.ts';
import { builtinPluginDir, type ExitCode, type Streams } from './run.ts';

export interface Prepared {
  readonly config: Config;
  readonly manifests: readonly Manifest[];
  readonly pluginConfigs: PluginConfigs;
  readonly plan: Plan | Refused;
  /** Everything that stands against a start, from manifests, the plugins' config and the plan. Nothing may be started unless it is empty. */
  readonly problems: readonly Problem[];
  /** Plugins from `kernel.plugin_dirs` that something is wrong with: no reason not to start the others. */
  readonly leftOut: readonly (LeftOut & { readonly problems: readonly Problem[] })[];
  readonly warnings: readonly Problem[];
}

/** @throws ProblemsError when the config file itself is wrong. */
export function prepare(
  flags: GlobalFlags,
  options: Pick<PlanOptions, 'provided'> = { provided: kernelContracts },
): Prepared {
  const config = loadConfig(flags.config, flags);
  const builtin = loadManifests(builtinPluginDir);
  const others = loadManifests(...config.kernel.pluginDirs);
  const { builtin: own, proxies, warnings } = withProxies(builtin.manifests, config);
  const { plan, manifests, configs, problems, leftOut } = planWithout(
    own,
    [...proxies, ...others.manifests],
    others.broken,
    (each) => pluginConfigs(config, each),
    { ...options, disabled: config.disabledPlugins, required: config.requiredPlugins },
  );
  return {
    config,
    manifests,
    pluginConfigs: configs,
    plan,
    problems: [...builtin.problems, ...problems],
    leftOut,
    warnings: [...config.warnings, ...warnings, ...configs.warnings, ...plan.warnings],
  };
}

export function printPlan(flags: GlobalFlags, streams: Streams): ExitCode {
  const { plan: planned, problems, warnings } = prepare(flags);
  const result = problems.length > 0 ? { ok: false as const, problems, warnings } : { ...planned, warnings };
  streams.out(renderPlan(result));
  return problems.length > 0 ? 1 : 0;
}
