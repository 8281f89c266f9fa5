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

export type Invocation =
  | { readonly command: 'daemon'; readonly flags: GlobalFlags }
  | { readonly command: 'plan'; readonly flags: GlobalFlags }
  | { readonly command: 'publish'; readonly flags: GlobalFlags; readonly namespace: string; readonly topic: string }
  | { readonly command: 'oci-hook'; readonly args: readonly string[] }
  | {
      readonly command: 'config default' | 'config dump' | 'config migrate' | 'config check';
      readonly flags: GlobalFlags;
    }
  | { readonly command: 'config explain'; readonly flags: GlobalFlags; readonly key: string }
  | { readonly command: 'version' }
  | { readonly command: 'help'; readonly topic: string }
  | { readonly command: 'usage error'; readonly message: string };

/** Long name → the field it fills. */
const valueFlags: Readonly<Record<string, keyof GlobalFlags | 'namespace' | 'topic'>> = {
  config: 'config',
  address: 'address',
  root: 'root',
  state: 'state',
  'log-level': 'logLevel',
  namespace: 'namespace',
  topic: 'topic',
};
const shortFlags: Readonly<Record<string, string>> = {
  c: 'config',
  a: 'address',
  l: 'log-level',
  h: 'help',
  v: 'version',
};
const switches = ['help', 'version'];
const commands = ['publish', 'oci-hook', 'plan', 'config', 'help'];
const configCommands = ['default', 'dump', 'migrate', 'check', 'explain'];

type Values = { [K in keyof GlobalFlags | 'namespace' | 'topic']?: string };

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
  return invocation(words, values);
}

function usage(message: string): Invocation {
  return { command: 'usage error', message };
}

function invocation(words: readonly string[], values: Values): Invocation {
  const { namespace, topic, ...flags } = values;
  const [command, ...rest] = words;
  if (command !== 'publish' && (namespace !== undefined || topic !== undefined))
    return usage(`--${namespace === undefined ? 'topic' : 'namespace'} belongs to publish`);
  switch (command) {
    case undefined:
      return { command: 'daemon', flags };
    case 'publish':
      if (rest.length > 0) return usage(`publish takes no argument, and got "${rest[0]}"`);
      if (topic === undefined || topic === '') return usage('publish needs --topic');
      return { command, flags, namespace: namespace ?? '', topic };
    case 'oci-hook':
      return rest.length === 0 ? usage('oci-hook needs a command to run') : { command, args: rest };
    case 'plan':
      return rest.length > 0 ? usage(`plan takes no argument, and got "${rest[0]}"`) : { command, flags };
    case 'config':
      return configInvocation(rest, flags);
    case 'help':
      return { command, topic: rest[0] ?? '' };
    default:
      return usage(`unknown command "${command}"${suggestion(command, commands)}`);
  }
}

function configInvocation([command, ...rest]: readonly string[], flags: GlobalFlags): Invocation {
  if (command === undefined) return { command: 'help', topic: 'config' };
  if (!configCommands.includes(command))
    return usage(`unknown command "config ${command}"${suggestion(command, configCommands)}`);
  if (command === 'explain') {
    if (rest.length !== 1) return usage('config explain needs one key, such as grpc.address');
    return { command: 'config explain', flags, key: rest[0]! };
  }
  if (rest.length > 0) return usage(`config ${command} takes no argument, and got "${rest[0]}"`);
  return { command: `config ${command}` as 'config default', flags };
}
