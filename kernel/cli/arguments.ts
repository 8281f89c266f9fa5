/**
 * The command line: containerd's flags and commands, and ours. Pure; what is wrong with it comes back as a text.
 *
 * Flags may stand before or after the command: shims write `--address A publish --topic T --namespace N`, people write it the other way
 * round. One dash or two, as Go's flag package reads them.
 */
import { suggestion } from '../config/nearest.ts';

export interface GlobalFlags {
  readonly config?: string;
  readonly address?: string;
  readonly root?: string;
  readonly state?: string;
  readonly logLevel?: string;
}

/** What may be done with the plugins of a daemon that runs. */
export const pluginActions = [
  'ls',
  'top',
  'watch',
  'reload',
  'restart',
  'stop',
  'start',
  'profile',
  'plan',
  'config-diff',
  'test',
] as const;
export type PluginAction = (typeof pluginActions)[number];

export interface PluginsInvocation {
  readonly command: 'plugins';
  readonly flags: GlobalFlags;
  readonly action: PluginAction;
  /** Ids or aliases; of `test` a folder. */
  readonly ids: readonly string[];
  readonly json: boolean;
  /** Of reload: also when nothing has changed on disk. */
  readonly force: boolean;
  /** Of profile and top. */
  readonly seconds?: number;
  readonly output?: string;
}

export type Invocation =
  | { readonly command: 'daemon'; readonly flags: GlobalFlags; readonly watch?: true }
  | PluginsInvocation
  | { readonly command: 'config reload'; readonly flags: GlobalFlags; readonly dryRun: boolean }
  | { readonly command: 'plan'; readonly flags: GlobalFlags }
  | { readonly command: 'publish'; readonly flags: GlobalFlags; readonly namespace: string; readonly topic: string }
  | { readonly command: 'oci-hook'; readonly args: readonly string[] }
  | {
      readonly command: 'config default' | 'config dump' | 'config migrate' | 'config check';
      readonly flags: GlobalFlags;
    }
  | { readonly command: 'config explain'; readonly flags: GlobalFlags; readonly key: string }
  | {
      readonly command: 'registry test';
      readonly flags: GlobalFlags;
      readonly reference: string;
      readonly plainHttp: boolean;
      readonly hostsDir: string;
    }
  | { readonly command: 'content verify'; readonly flags: GlobalFlags; readonly drop: boolean }
  | { readonly command: 'version' }
  | { readonly command: 'help'; readonly topic: string }
  | { readonly command: 'usage error'; readonly message: string };

/** Long name → the field it fills. */
type ValueName = keyof GlobalFlags | 'namespace' | 'topic' | 'seconds' | 'output' | 'hostsDir';

const valueFlags: Readonly<Record<string, ValueName>> = {
  config: 'config',
  address: 'address',
  root: 'root',
  state: 'state',
  'log-level': 'logLevel',
  namespace: 'namespace',
  topic: 'topic',
  seconds: 'seconds',
  output: 'output',
  'hosts-dir': 'hostsDir',
};
const shortFlags: Readonly<Record<string, string>> = {
  c: 'config',
  a: 'address',
  l: 'log-level',
  h: 'help',
  v: 'version',
  o: 'output',
};
const switches = ['help', 'version', 'json', 'force', 'dry-run', 'watch', 'plain-http', 'drop'];
const commands = ['publish', 'oci-hook', 'plan', 'plugins', 'registry', 'content', 'config', 'help'];
const configCommands = ['default', 'dump', 'migrate', 'check', 'explain', 'reload'];

/** Flags that are not for every command, with the commands they belong to. */
const owners: Readonly<Record<string, readonly string[]>> = {
  namespace: ['publish'],
  topic: ['publish'],
  json: ['plugins ls', 'plugins watch', 'plugins reload'],
  force: ['plugins reload'],
  seconds: ['plugins profile', 'plugins top'],
  output: ['plugins profile'],
  'dry-run': ['config reload'],
  watch: [''],
  'plain-http': ['registry test'],
  hostsDir: ['registry test'],
  drop: ['content verify'],
};

type Values = { [K in ValueName]?: string };

export function parseArguments(argv: readonly string[]): Invocation {
  const values: Values = {};
  const words: string[] = [];
  const on = new Set<string>();
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    if (argument === '--') {
      words.push(...argv.slice(i + 1));
      break;
    }
    if (words[0] === 'oci-hook' || !argument.startsWith('-') || argument === '-') {
      words.push(argument);
      // The rest is another program's command line, flags and all.
      if (words[0] === 'oci-hook' && words.length > 1) {
        words.push(...argv.slice(i + 1));
        break;
      }
      continue;
    }
    const [, dashes, written, , given] = /^(--?)([^=]*)(=([\s\S]*))?$/.exec(argument)!;
    const name = dashes === '-' && Object.hasOwn(shortFlags, written!) ? shortFlags[written!]! : written!;
    if (switches.includes(name) && given === undefined) on.add(name);
    else if (switches.includes(name)) {
      if (given !== 'true' && given !== 'false') return usage(`--${name} takes no value`);
      if (given === 'true') on.add(name);
    } else if (Object.hasOwn(valueFlags, name)) {
      const value = given ?? argv[++i];
      if (value === undefined) return usage(`${argument} needs a value`);
      values[valueFlags[name]!] = value;
    } else
      return usage(`unknown flag ${dashes}${written}${suggestion(name, [...Object.keys(valueFlags), ...switches])}`);
  }
  if (on.has('help')) return { command: 'help', topic: words[0] ?? '' };
  if (on.has('version')) return { command: 'version' };
  const parsed = invocation(words, values, on);
  const stranger = [...Object.keys(values), ...on].find((name) => {
    return Object.hasOwn(owners, name) && !owners[name]!.includes(nameOf(parsed));
  });
  if (stranger === undefined || parsed.command === 'usage error') return parsed;
  const owner = owners[stranger]!.map((each) => each || 'the daemon').join(', ');
  const flag = Object.keys(valueFlags).find((name) => valueFlags[name] === stranger) ?? stranger;
  return usage(`--${flag} belongs to ${owner}`);
}

/** As it is written. */
function nameOf(parsed: Invocation): string {
  if (parsed.command === 'daemon') return '';
  return parsed.command === 'plugins' ? `plugins ${parsed.action}` : parsed.command;
}

function usage(message: string): Invocation {
  return { command: 'usage error', message };
}

function invocation(words: readonly string[], values: Values, on: ReadonlySet<string>): Invocation {
  const { namespace, topic, seconds, output, hostsDir = '', ...flags } = values;
  const [command, ...rest] = words;
  switch (command) {
    case undefined:
      return { command: 'daemon', flags, ...(on.has('watch') && { watch: true as const }) };
    case 'publish':
      if (rest.length > 0) return usage(`publish takes no argument, and got "${rest[0]}"`);
      if (topic === undefined || topic === '') return usage('publish needs --topic');
      return { command, flags, namespace: namespace ?? '', topic };
    case 'oci-hook':
      return rest.length === 0 ? usage('oci-hook needs a command to run') : { command, args: rest };
    case 'plan':
      return rest.length > 0 ? usage(`plan takes no argument, and got "${rest[0]}"`) : { command, flags };
    case 'plugins':
      return pluginsInvocation(rest, flags, { seconds, output, json: on.has('json'), force: on.has('force') });
    case 'registry':
      if (rest.length === 0) return { command: 'help', topic: 'registry' };
      if (rest[0] !== 'test') return usage(`unknown command "registry ${rest[0]}"${suggestion(rest[0]!, ['test'])}`);
      if (rest.length !== 2)
        return usage('registry test needs one reference, such as docker.io/library/busybox:latest');
      return { command: 'registry test', flags, reference: rest[1]!, plainHttp: on.has('plain-http'), hostsDir };
    case 'content':
      if (rest.length === 0) return { command: 'help', topic: 'content' };
      if (rest[0] !== 'verify') return usage(`unknown command "content ${rest[0]}"${suggestion(rest[0]!, ['verify'])}`);
      if (rest.length > 1) return usage(`content verify takes no argument, and got "${rest[1]}"`);
      return { command: 'content verify', flags, drop: on.has('drop') };
    case 'config':
      return configInvocation(rest, flags, on.has('dry-run'));
    case 'help':
      return { command, topic: rest[0] ?? '' };
    default:
      return usage(`unknown command "${command}"${suggestion(command, commands)}`);
  }
}

function pluginsInvocation(
  [word, ...ids]: readonly string[],
  flags: GlobalFlags,
  { seconds, output, json, force }: { seconds?: string; output?: string; json: boolean; force: boolean },
): Invocation {
  if (word === undefined) return { command: 'help', topic: 'plugins' };
  const action = pluginActions.find((each) => each === word || (word === 'list' && each === 'ls'));
  if (action === undefined) return usage(`unknown command "plugins ${word}"${suggestion(word, pluginActions)}`);
  if (['reload', 'restart', 'stop', 'start'].includes(action) && ids.length === 0)
    return usage(`plugins ${action} needs the id of a plugin`);
  if (['profile', 'test'].includes(action) && ids.length !== 1)
    return usage(`plugins ${action} needs one ${action === 'test' ? 'folder' : 'id of a plugin'}`);
  if (['plan', 'config-diff', 'top'].includes(action) && ids.length > 0)
    return usage(`plugins ${action} takes no argument, and got "${ids[0]}"`);
  const given = seconds === undefined ? undefined : Number(seconds);
  if (given !== undefined && !(given > 0 && given <= 60))
    return usage(`--seconds is from above 0 to 60, not ${seconds}`);
  return {
    command: 'plugins',
    flags,
    action,
    ids,
    json,
    force,
    ...(given !== undefined && { seconds: given }),
    ...(output !== undefined && { output }),
  };
}

function configInvocation([command, ...rest]: readonly string[], flags: GlobalFlags, dryRun: boolean): Invocation {
  if (command === undefined) return { command: 'help', topic: 'config' };
  if (!configCommands.includes(command))
    return usage(`unknown command "config ${command}"${suggestion(command, configCommands)}`);
  if (command === 'explain') {
    if (rest.length !== 1) return usage('config explain needs one key, such as grpc.address');
    return { command: 'config explain', flags, key: rest[0]! };
  }
  if (rest.length > 0) return usage(`config ${command} takes no argument, and got "${rest[0]}"`);
  if (command === 'reload') return { command: 'config reload', flags, dryRun };
  return { command: `config ${command}` as 'config default', flags };
}
