/** The `[plugins]` part of the config against the manifests: what each plugin receives, and what nobody does. */
import { readValue } from '../plan/config-key.ts';
import type { Manifest } from '../plan/manifest.ts';
import type { Config } from './config.ts';
import { containerdKeys, isContainerdPlugin } from './containerd-keys.ts';
import { renamedPlugins } from './moves.ts';
import { suggestion } from './nearest.ts';
import type { Problem } from './problem.ts';
import { problemAt, TableReader } from './table.ts';

export interface PluginConfig {
  /** Key of the manifest → value as declared there: durations in milliseconds, sizes in bytes, everything structured-cloneable. */
  readonly value: Record<string, unknown>;
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
  /** `thread = "NAME"`, which every plugin's table may have. */
  readonly thread?: string;
}

/** Under the plugin's id or any alias; later aliases yield to earlier ones and to the id. */
export function pluginConfig(config: Config, manifest: Manifest): PluginConfig {
  const problems: Problem[] = [];
  const warnings: Problem[] = [];
  const tables = sectionNames(manifest).flatMap((name) => {
    if (!Object.hasOwn(config.plugins, name)) return [];
    return [{ name, reader: new TableReader(config.document, problems, config.plugins[name]!, ['plugins', name]) }];
  });
  const value: Record<string, unknown> = {};
  let thread: string | undefined;
  for (const { reader } of tables)
    thread ??= Object.hasOwn(manifest.config, 'thread') ? undefined : reader.string('thread');
  for (const [name, key] of Object.entries(manifest.config)) {
    let found: unknown;
    for (const { reader } of tables) {
      const here = readValue(reader, name, key);
      found ??= here;
    }
    value[name] = found ?? structuredClone(key.default);
  }
  for (const { name, reader } of tables) {
    for (const key of containerdKeys(name)) {
      if (!reader.has(key) || Object.hasOwn(manifest.config, key)) continue;
      reader.take(key);
      warnings.push(problemAt(config.document, ['plugins', name, key], `plugins."${name}".${key} has no effect here`));
    }
    reader.rest();
  }
  return { value, problems, warnings, ...(thread !== undefined && { thread }) };
}

export interface PluginConfigs {
  /** By plugin id. */
  readonly values: ReadonlyMap<string, Record<string, unknown>>;
  /** Plugin id → name of the worker it runs in; its own id when it shares with nobody. */
  readonly threads: ReadonlyMap<string, string>;
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
}

/** All plugins at once, and the sections that belong to none. */
export function pluginConfigs(config: Config, manifests: readonly Manifest[]): PluginConfigs {
  const problems: Problem[] = [];
  const warnings: Problem[] = [];
  const values = new Map<string, Record<string, unknown>>();
  const threads = new Map<string, string>();
  for (const manifest of manifests) {
    const found = pluginConfig(config, manifest);
    problems.push(...found.problems.map((problem) => ({ ...problem, blames: [manifest.file] })));
    warnings.push(...found.warnings);
    values.set(manifest.id, found.value);
    const shared = config.kernel.threads === 'lean' ? manifest.thread : undefined;
    threads.set(manifest.id, found.thread ?? shared ?? manifest.id);
  }
  const known = new Set(manifests.flatMap(sectionNames));
  for (const id of Object.keys(config.plugins)) {
    if (known.has(id)) continue;
    const hint = isContainerdPlugin(id) ? '' : suggestion(id, known);
    warnings.push(problemAt(config.document, ['plugins', id], `plugins."${id}": no such plugin here, ignored${hint}`));
  }
  return { values, threads, problems, warnings };
}

/** The file is read in the layout of version 3, where a few plugins have another URI than an alias from version 2 says. */
function sectionNames(manifest: Manifest): string[] {
  return [manifest.id, ...manifest.aliases].flatMap((name) => {
    const renamed = Object.hasOwn(renamedPlugins, name) ? renamedPlugins[name] : undefined;
    return renamed === undefined ? [name] : [name, renamed];
  });
}
