/** `config default | dump | check | migrate | explain`. */
import { defaultConfigPath, loadConfig, pluginConfigs, renderProblem } from '../config/index.ts';
import { explain, migrate, printDefault, printEffective, similarKey } from '../config/print.ts';
import { ProblemsError } from '../config/problem.ts';
import { loadManifests } from '../plan/index.ts';
import type { Invocation } from './arguments.ts';
import { builtinPluginDir, type ExitCode, type Streams } from './run.ts';

type ConfigInvocation = Extract<Invocation, { command: `config ${string}` }>;

export function configCommand(invocation: ConfigInvocation, streams: Streams): ExitCode {
  const { flags } = invocation;
  if (invocation.command === 'config default') {
    streams.out(printDefault(knownManifests([])));
    return 0;
  }
  if (invocation.command === 'config migrate') {
    streams.out(migrate(flags.config ?? defaultConfigPath));
    return 0;
  }
  const config = loadConfig(flags.config, flags);
  const manifests = knownManifests(config.kernel.pluginDirs);
  const plugins = pluginConfigs(config, manifests);
  for (const warning of [...config.warnings, ...plugins.warnings]) streams.err(`warning: ${renderProblem(warning)}\n`);
  if (plugins.problems.length > 0) throw new ProblemsError(plugins.problems);
  if (invocation.command === 'config dump') streams.out(printEffective(config, manifests));
  if (invocation.command !== 'config explain') return 0;
  const text = explain(config, manifests, invocation.key);
  if (text === undefined) {
    const similar = similarKey(manifests, invocation.key);
    throw new Error(
      `config explain: no key ${invocation.key}${similar === undefined ? '' : ` (did you mean ${similar}?)`}`,
    );
  }
  streams.out(text);
  return 0;
}

function knownManifests(dirs: readonly string[]) {
  const { manifests, problems } = loadManifests(builtinPluginDir, ...dirs);
  if (problems.length > 0) throw new ProblemsError(problems);
  return manifests;
}
