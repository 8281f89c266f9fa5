/** The config as text: `config default`, `dump`, `migrate` and `explain`. */
import { stringify } from 'smol-toml';
import type { ConfigKey, ConfigType } from '../plan/config-key.ts';
import type { Manifest } from '../plan/manifest.ts';
import type { Config } from './config.ts';
import { type Identity, processIdentity } from './identity.ts';
import { defaultConfig } from './load.ts';
import { toVersion3 } from './moves.ts';
import { nearest } from './nearest.ts';
import { pluginConfigs } from './plugins.ts';
import { ProblemsError } from './problem.ts';
import { formatDuration } from './quantity.ts';
import { sections, writtenVersion } from './schema.ts';
import { renderPath } from './table.ts';
import { isTable, parseToml, readToml, type TomlTable } from './toml.ts';

/** A file with every key at its default and what it means. Loaded back, it changes nothing. */
export function printDefault(manifests: readonly Manifest[], identity: Identity = processIdentity()): string {
  const head =
    '# The config of trouped. Every key is here with its default; keep the ones you change and drop the rest.\n\n';
  return head + print(defaultConfig({}, identity), manifests, identity, true);
}

/** The config in effect, without comments: root file, imports and flags merged. */
export function printEffective(
  config: Config,
  manifests: readonly Manifest[],
  identity: Identity = processIdentity(),
): string {
  return print(config, manifests, identity, false);
}

function print(config: Config, manifests: readonly Manifest[], identity: Identity, docs: boolean): string {
  const out: string[] = [];
  const values = settings(config);
  for (const [name, section] of Object.entries(sections(identity))) {
    if (name !== '') out.push(...(docs && section.doc !== '' ? ['', `# ${section.doc}`] : ['']), `[${name}]`);
    for (const [key, declared] of Object.entries(section.keys))
      out.push(...assignment(key, values[name]![key], declared, docs));
  }
  out.push('', ...(docs ? ['# how long the daemon waits for others'] : []), '[timeouts]');
  for (const [name, ms] of Object.entries(config.timeouts)) out.push(`${renderPath([name])} = "${formatDuration(ms)}"`);
  for (const name of ['proxy_plugins', 'stream_processors']) {
    const table = config.document.table[name];
    if (isTable(table)) out.push('', stringify({ [name]: table }).trimEnd());
  }
  out.push(...printPlugins(config, manifests, docs));
  return `${out.join('\n').trimStart()}\n`;
}

function printPlugins(config: Config, manifests: readonly Manifest[], docs: boolean): string[] {
  const out: string[] = [];
  const { values, threads } = pluginConfigs(config, manifests);
  const printed = new Set<string>();
  for (const manifest of manifests) {
    for (const name of [manifest.id, ...manifest.aliases]) printed.add(name);
    const thread = threads.get(manifest.id);
    const ownThread =
      thread !== undefined && thread !== manifest.id && thread !== manifest.thread
        ? [`thread = ${quoted(thread)}`]
        : [];
    const keys = Object.entries(manifest.config);
    if (keys.length === 0 && ownThread.length === 0) continue;
    out.push('', `[plugins.${renderPath([manifest.id])}]`, ...ownThread);
    for (const [key, declared] of keys) out.push(...assignment(key, values.get(manifest.id)![key], declared, docs));
  }
  // Sections of plugins that are not here are kept as they were written: they may be somebody's on another machine.
  for (const [id, table] of Object.entries(config.plugins)) {
    if (!printed.has(id)) out.push('', stringify({ plugins: { [id]: table } }).trimEnd());
  }
  return out;
}

function assignment(key: string, value: unknown, declared: ConfigKey, docs: boolean): string[] {
  return [...(docs ? [`# ${declared.doc}`] : []), `${renderPath([key])} = ${literal(value, declared.type)}`];
}

function quoted(text: string): string {
  return stringify({ x: text }).slice('x = '.length).trimEnd();
}

/** A value on one line, tables inline, so that a key never becomes a section of its own. */
function literal(value: unknown, type?: ConfigType): string {
  if (type === 'duration') return `"${formatDuration(value as number)}"`;
  if (type === 'float' && Number.isInteger(value)) return `${value}.0`;
  if (typeof value === 'string') return quoted(value);
  if (Array.isArray(value)) return `[${value.map((item) => literal(item)).join(', ')}]`;
  if (value instanceof Date) return value.toISOString();
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([key, item]) => `${renderPath([key])} = ${literal(item)}`);
    return entries.length === 0 ? '{}' : `{ ${entries.join(', ')} }`;
  }
  return String(value);
}

/** The effective values by section and key of the schema. */
export function settings(config: Config): Readonly<Record<string, Readonly<Record<string, unknown>>>> {
  const { grpc, ttrpc, debug, metrics, kernel } = config;
  const { front } = kernel;
  return {
    '': {
      version: writtenVersion,
      root: config.root,
      state: config.state,
      temp: config.temp,
      imports: [],
      disabled_plugins: config.disabledPlugins,
      required_plugins: config.requiredPlugins,
      oom_score: config.oomScore,
    },
    grpc: {
      address: grpc.address,
      uid: grpc.uid,
      gid: grpc.gid,
      tcp_address: grpc.tcpAddress,
      tcp_tls_cert: grpc.tcpTlsCert,
      tcp_tls_key: grpc.tcpTlsKey,
      tcp_tls_ca: grpc.tcpTlsCa,
      tcp_tls_common_name: grpc.tcpTlsCommonName,
      max_recv_message_size: grpc.maxRecvMessageSize,
      max_send_message_size: grpc.maxSendMessageSize,
    },
    // Left empty where it follows grpc.address, so that it goes on following when the file is edited.
    ttrpc: { address: ttrpc.address === `${grpc.address}.ttrpc` ? '' : ttrpc.address, uid: ttrpc.uid, gid: ttrpc.gid },
    debug: { address: debug.address, uid: debug.uid, gid: debug.gid, level: debug.level, format: debug.format },
    metrics: { address: metrics.address, grpc_histogram: metrics.grpcHistogram },
    cgroup: { path: config.cgroup.path },
    kernel: {
      threads: kernel.threads,
      plugin_dirs: kernel.pluginDirs,
      unresponsive: kernel.unresponsiveMs,
      kill: kernel.killMs,
    },
    'kernel.front': {
      insecure_tcp: grpc.insecureTcp,
      max_connections: front.maxConnections,
      max_tcp_connections: front.maxTcpConnections,
      max_streams: front.maxStreams,
      max_header_size: front.maxHeaderSize,
      connection_memory: front.connectionMemory,
      memory: front.memory,
      handshake: front.handshakeMs,
    },
  };
}

/**
 * The file in format version 3, from 1, 2, 3 or 4. Comments are lost: there is no place for one whose key has gone elsewhere.
 * @throws ProblemsError when the file cannot be read, or is newer than that
 */
export function migrate(file: string): string {
  const document = readToml(file);
  const { version: written, ...rest } = document.table;
  const namesPlugins = ['plugins', 'disabled_plugins', 'required_plugins'].some((key) => Object.hasOwn(rest, key));
  const version = written === undefined ? (namesPlugins ? 1 : writtenVersion) : Number(written);
  if (!(version >= 1 && version <= 4)) {
    throw new ProblemsError([
      { ...document.locate(['version']), message: `version ${String(written)} is none of 1 to 4` },
    ]);
  }
  const { table } = toVersion3({ ...document, table: Object.assign(Object.create(null) as TomlTable, rest) }, version);
  return stringify({ version: writtenVersion, ...table });
}

/** What a key means, its default, and its value with where that comes from; or what there is instead. Undefined when there is nothing like it. */
export function explain(
  config: Config,
  manifests: readonly Manifest[],
  key: string,
  identity: Identity = processIdentity(),
): string | undefined {
  const path = parsePath(key, manifests);
  if (path === undefined) return undefined;
  const found = lookUp(config, manifests, path, identity);
  if (found === undefined) return undefined;
  const { declared, value, names } = found;
  const place = names.map((name) => config.origin(name)).find((origin) => origin !== undefined);
  const { document } = config;
  const isSet = names.some((name) => isWritten(document.table, name)) || (place?.startsWith('--') ?? false);
  return [
    renderPath(path),
    `  ${declared.doc}`,
    `  type     ${declared.type}${declared.choices === undefined ? '' : `: ${declared.choices.filter((c) => c !== '').join(', ')}`}`,
    `  default  ${literal(declared.default, declared.type)}`,
    `  value    ${literal(value, declared.type)}${isSet && place !== undefined ? `, from ${place}` : ', the default'}`,
    '',
  ].join('\n');
}

function isWritten(table: TomlTable, path: readonly string[]): boolean {
  let value: unknown = table;
  for (const key of path) {
    if (!isTable(value) || !Object.hasOwn(value, key)) return false;
    value = value[key];
  }
  return true;
}

interface Found {
  readonly declared: ConfigKey;
  readonly value: unknown;
  /** Where it may be written: a plugin's key also under its aliases. */
  readonly names: readonly (readonly string[])[];
}

function lookUp(
  config: Config,
  manifests: readonly Manifest[],
  path: readonly string[],
  identity: Identity,
): Found | undefined {
  const key = path.at(-1)!;
  if (path[0] === 'timeouts' && path.length === 2) {
    const value = config.timeouts[key];
    if (value === undefined) return undefined;
    return { declared: { type: 'duration', default: value, doc: 'how long the daemon waits' }, value, names: [path] };
  }
  if (path[0] === 'plugins' && path.length === 3) {
    const manifest = manifests.find(({ id, aliases }) => id === path[1] || aliases.includes(path[1]!));
    if (manifest === undefined || !Object.hasOwn(manifest.config, key)) return undefined;
    const value = pluginConfigs(config, [manifest]).values.get(manifest.id)![key];
    const names = [manifest.id, ...manifest.aliases].map((name) => ['plugins', name, key]);
    return { declared: manifest.config[key]!, value, names };
  }
  const section = path.slice(0, -1).join('.');
  const declared = sections(identity)[section]?.keys[key];
  return declared === undefined ? undefined : { declared, value: settings(config)[section]![key], names: [path] };
}

/** `plugins.io.containerd.gc.v1.scheduler.x` is taken for what it means, though TOML would want the quotes. */
function parsePath(key: string, manifests: readonly Manifest[]): string[] | undefined {
  const short = key.replace(/^plugins\./, '');
  for (const name of manifests.flatMap(({ id, aliases }) => [id, ...aliases])) {
    if (short.startsWith(`${name}.`)) return ['plugins', name, short.slice(name.length + 1)];
  }
  const path: string[] = [];
  try {
    let value: unknown = parseToml(`${key} = 1`, 'key').table;
    for (; isTable(value); value = value[path.at(-1)!]) path.push(Object.keys(value)[0]!);
    return path;
  } catch {
    return undefined;
  }
}

/** All keys that `explain` knows, for suggestions. */
export function similarKey(
  manifests: readonly Manifest[],
  key: string,
  identity: Identity = processIdentity(),
): string | undefined {
  const own = Object.entries(sections(identity)).flatMap(([name, { keys }]) =>
    Object.keys(keys).map((each) => (name === '' ? each : `${name}.${each}`)),
  );
  const plugins = manifests.flatMap(({ id, config }) =>
    Object.keys(config).map((each) => renderPath(['plugins', id, each])),
  );
  return nearest(key, [...own, ...plugins]) ?? own.find((each) => each.endsWith(`.${key}`));
}
