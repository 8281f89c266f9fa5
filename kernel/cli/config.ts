/** `config default | dump | check | migrate | explain`. */
import { defaultConfigPath, renderProblem } from '../config/index.ts';
import { explain, migrate, printDefault, printEffective, similarKey } from '../config/print.ts';
import { ProblemsError } from '../config/problem.ts';
import { loadManifests } from '../plan/index.ts';
import type { Invocation } from './arguments.ts';
import { prepare } from './plan.ts';
import { builtinPluginDir, type ExitCode, type Streams } from './run.ts';

type ConfigInvocation = Exclude<Extract<Invocation, { command: `config ${string}` }>, { command: 'config reload' }>;

export function configCommand(invocation: ConfigInvocation, streams: Streams): ExitCode {
  const { flags } = invocation;
  if (invocation.command === 'config default') {
    streams.out(printDefault(builtinManifests()));
    return 0;
  }
  if (invocation.command === 'config migrate') {
    streams.out(migrate(flags.config ?? defaultConfigPath));
    return 0;
  }
  const { config, manifests, pluginConfigs: plugins, leftOut } = prepare(flags);
  for (const warning of [...config.warnings, ...plugins.warnings]) streams.err(`warning: ${renderProblem(warning)}\n`);
  if (plugins.problems.length > 0) throw new ProblemsError(plugins.problems);
  const broken = leftOut.flatMap(({ problems }) => problems);
  // The daemon would start without them; who asks whether all is right is told that it is not.
  if (invocation.command === 'config check' && broken.length > 0) throw new ProblemsError(broken);
  for (const problem of broken) streams.err(`warning: ${renderProblem(problem)}\n`);
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

function builtinManifests() {
  const { manifests, problems } = loadManifests(builtinPluginDir);
  if (problems.length > 0) throw new ProblemsError(problems);
  // What proxies are made from is none.
  return manifests.filter((manifest) => manifest.proxies === undefined);
}
