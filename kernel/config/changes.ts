/**
 * What a changed config file asks for, as data: nothing is started or stopped here. Both sides were loaded and planned completely before, so a file that is
 * wrong never gets this far and changes nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Plan } from '../plan/plan.ts';
import type { Config } from './config.ts';
import type { PluginConfigs } from './plugins.ts';
import { settings } from './print.ts';

export interface ConfigState {
  readonly config: Config;
  readonly plan: Plan;
  readonly pluginConfigs: Pick<PluginConfigs, 'values' | 'threads'>;
}

export interface ConfigChanges {
  /** Ids in the order of starting. */
  readonly start: readonly string[];
  /** Ids in the order of stopping: dependants first. */
  readonly stop: readonly string[];
  /** Values changed: `configure(next)` is asked first, and may answer that it wants a reload. */
  readonly reconfigure: readonly string[];
  /** Another folder or another manifest behind the same id: a new worker is needed whatever the plugin says. */
  readonly reload: readonly string[];
  /** Its worker is shared with others, or no longer: that is decided at the start of the daemon. */
  readonly rethread: readonly string[];
  /** Keys outside [plugins] that differ, as `section.key`. */
  readonly settings: readonly string[];
  readonly nothing: boolean;
}

export function configChanges(before: ConfigState, after: ConfigState): ConfigChanges {
  const was = new Set(before.plan.order);
  const is = new Set(after.plan.order);
  const kept = after.plan.order.filter((id) => was.has(id));
  const start = after.plan.order.filter((id) => !was.has(id));
  const stop = before.plan.order.toReversed().filter((id) => !is.has(id));
  const reload = kept.filter((id) => needsWorker(id, before, after));
  const reconfigure = kept.filter(
    (id) =>
      !reload.includes(id) &&
      !isDeepStrictEqual(before.pluginConfigs.values.get(id), after.pluginConfigs.values.get(id)),
  );
  const rethread = kept.filter((id) => before.pluginConfigs.threads.get(id) !== after.pluginConfigs.threads.get(id));
  const changed = changedSettings(before.config, after.config);
  const nothing = [start, stop, reload, rethread, reconfigure, changed].every((list) => list.length === 0);
  return { start, stop, reconfigure, reload, rethread, settings: changed, nothing };
}

function needsWorker(id: string, before: ConfigState, after: ConfigState): boolean {
  const [old, next] = [before.plan.manifests.get(id)!, after.plan.manifests.get(id)!];
  // A proxy's is told by the line of the config, which a comment moves.
  return !isDeepStrictEqual({ ...old, file: '' }, { ...next, file: '' });
}

function changedSettings(before: Config, after: Config): string[] {
  const old = settings(before);
  const changed = Object.entries(settings(after)).flatMap(([section, values]) =>
    Object.entries(values).flatMap(([key, value]) => {
      // Whether a plugin runs shows in start and stop.
      const isPlanned = key === 'disabled_plugins';
      return isPlanned || isDeepStrictEqual(value, old[section]?.[key])
        ? []
        : [section === '' ? key : `${section}.${key}`];
    }),
  );
  // A proxy is a plugin, and shows as one.
  for (const key of ['timeouts', 'streamProcessors'] as const) {
    const name = { timeouts: 'timeouts', streamProcessors: 'stream_processors' }[key];
    if (!isDeepStrictEqual(before[key], after[key])) changed.push(name);
  }
  return changed;
}
