/** `plan`, and the loading of everything that a plan is made from, which the daemon's start shares. */
import { type Config, loadConfig, type PluginConfigs, type Problem, pluginConfigs } from '../config/index.ts';
import {
  loadManifests,
  type Manifest,
  type Plan,
  type PlanOptions,
  plan,
  type Refused,
  renderPlan,
} from '../plan/index.ts';
import type { GlobalFlags } from './arguments.ts';
import { builtinPluginDir, type ExitCode, type Streams } from './run.ts';

/** Contract → version of what the kernel serves to plugins itself. */
export const kernelContracts: Readonly<Record<string, string>> = { 'troupe.kernel.v1.Kernel': '1.0.0' };

export interface Prepared {
  readonly config: Config;
  readonly manifests: readonly Manifest[];
  readonly pluginConfigs: PluginConfigs;
  readonly plan: Plan | Refused;
  /** Everything that stands against a start, from manifests, the plugins' config and the plan. Nothing may be started unless it is empty. */
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
}

/** @throws ProblemsError when the config file itself is wrong. */
export function prepare(
  flags: GlobalFlags,
  options: Pick<PlanOptions, 'provided'> = { provided: kernelContracts },
): Prepared {
  const config = loadConfig(flags.config, flags);
  const { manifests, problems } = loadManifests(builtinPluginDir, ...config.kernel.pluginDirs);
  const configs = pluginConfigs(config, manifests);
  const planned = plan(manifests, { ...options, disabled: config.disabledPlugins, required: config.requiredPlugins });
  return {
    config,
    manifests,
    pluginConfigs: configs,
    plan: planned,
    problems: [...problems, ...configs.problems, ...(planned.ok ? [] : planned.problems)],
    warnings: [...config.warnings, ...configs.warnings, ...planned.warnings],
  };
}

export function printPlan(flags: GlobalFlags, streams: Streams): ExitCode {
  const { plan: planned, problems, warnings } = prepare(flags);
  const result = problems.length > 0 ? { ok: false as const, problems, warnings } : { ...planned, warnings };
  streams.out(renderPlan(result));
  return problems.length > 0 ? 1 : 0;
}
