/** File and flags → Config, or every problem at once. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { type ConfigKey, readValue } from '../plan/config-key.ts';
import type { Config, ConfigFlags, GrpcConfig, LogLevel, ProxyPlugin, StreamProcessor } from './config.ts';
import { defaultConfigPath, type Identity, processIdentity } from './identity.ts';
import { type Loaded, loadWithImports } from './imports.ts';
import { MergedDocument } from './merge.ts';
import { type Problem, ProblemsError } from './problem.ts';
import {
  levels,
  proxyPluginKeys,
  type Section,
  sections,
  streamProcessorKeys,
  timeoutDefaults,
  writtenVersion,
} from './schema.ts';
import { problemAt, TableReader } from './table.ts';
import type { TomlTable } from './toml.ts';

/**
 * @param file as given by --config; undefined reads the default file if there is one.
 * @throws ProblemsError with everything wrong in all files, each with file and line.
 */
export function loadConfig(file?: string, flags: ConfigFlags = {}, identity: Identity = processIdentity()): Config {
  if (file !== undefined) return fromLoaded(loadWithImports(file), flags, identity);
  if (existsSync(defaultConfigPath)) return fromLoaded(loadWithImports(defaultConfigPath), flags, identity);
  return defaultConfig(flags, identity);
}

/** What the daemon runs with when there is no file. */
export function defaultConfig(flags: ConfigFlags = {}, identity: Identity = processIdentity()): Config {
  const document = new MergedDocument(defaultConfigPath);
  return fromLoaded({ document, version: writtenVersion, files: [], problems: [], warnings: [] }, flags, identity);
}

type Values = Record<string, unknown>;

function fromLoaded(loaded: Loaded, flags: ConfigFlags, identity: Identity): Config {
  const problems = [...loaded.problems];
  const warnings = [...loaded.warnings];
  const top = new TableReader(loaded.document, problems);
  const schema = sections(identity);
  const read = (name: string) => readSection(name, schema[name]!, top, warnings);
  const main = readKeys(top, schema['']!.keys);
  const [grpc, ttrpc, debug, metrics, cgroup] = ['grpc', 'ttrpc', 'debug', 'metrics', 'cgroup'].map(read) as [
    Values,
    Values,
    Values,
    Values,
    Values,
  ];
  const kernel = read('kernel');
  const front = read('kernel.front');
  const plugins = readPlugins(top);
  const timeouts = readTimeouts(top.child('timeouts'));
  const proxyPlugins = readProxyPlugins(top.child('proxy_plugins'), warnings);
  const streamProcessors = readStreamProcessors(top.child('stream_processors'), warnings);
  if (top.take('plugin_dir') !== undefined)
    warnings.push(
      problemAt(
        loaded.document,
        ['plugin_dir'],
        'plugin_dir names shared objects of containerd 1.x and is ignored; plugins of ours: kernel.plugin_dirs',
      ),
    );
  top.rest(warnings, ', ignored');

  const address =
    flags.address === undefined ? (grpc.address as string) : fromFlag('--address', flags.address, problems);
  const ttrpcAddress =
    flags.address === undefined && ttrpc.address !== '' ? (ttrpc.address as string) : `${address}.ttrpc`;
  const level = flags.logLevel === undefined ? debug.level || 'info' : levelFlag(flags.logLevel, problems);
  const config: Config = {
    version: loaded.version,
    files: loaded.files,
    root: flags.root === undefined ? (main.root as string) : fromFlag('--root', flags.root, problems),
    state: flags.state === undefined ? (main.state as string) : fromFlag('--state', flags.state, problems),
    temp: main.temp as string,
    disabledPlugins: main.disabled_plugins as string[],
    requiredPlugins: main.required_plugins as string[],
    oomScore: main.oom_score as number,
    grpc: {
      ...socket(grpc, address),
      tcpAddress: grpc.tcp_address as string,
      tcpTlsCert: grpc.tcp_tls_cert as string,
      tcpTlsKey: grpc.tcp_tls_key as string,
      tcpTlsCa: grpc.tcp_tls_ca as string,
      tcpTlsCommonName: grpc.tcp_tls_common_name as string,
      // containerd takes zero for its default here.
      maxRecvMessageSize: (grpc.max_recv_message_size as number) || 16 << 20,
      maxSendMessageSize: (grpc.max_send_message_size as number) || 16 << 20,
      insecureTcp: front.insecure_tcp as boolean,
    },
    ttrpc: socket(ttrpc, ttrpcAddress),
    debug: {
      ...socket(debug, debug.address as string),
      level: level as LogLevel,
      format: (debug.format || 'text') as 'text' | 'json',
    },
    metrics: { address: metrics.address as string, grpcHistogram: metrics.grpc_histogram as boolean },
    cgroup: { path: cgroup.path as string },
    timeouts,
    proxyPlugins,
    streamProcessors,
    plugins,
    kernel: {
      threads: kernel.threads as 'plugin' | 'lean',
      pluginDirs: kernel.plugin_dirs as string[],
      unresponsiveMs: kernel.unresponsive as number,
      killMs: kernel.kill as number,
      front: {
        maxConnections: front.max_connections as number,
        maxTcpConnections: front.max_tcp_connections as number,
        maxStreams: front.max_streams as number,
        maxHeaderSize: front.max_header_size as number,
        connectionMemory: front.connection_memory as number,
        memory: front.memory as number,
        handshakeMs: front.handshake as number,
      },
    },
    warnings,
    document: loaded.document,
    origin: (path) => originOf(path, loaded.document, flags),
  };
  checkTogether(config, problems, warnings);
  if (problems.length > 0) throw new ProblemsError(problems);
  return config;
}

function readKeys(table: TableReader | undefined, keys: Readonly<Record<string, ConfigKey>>): Values {
  const values: Values = {};
  for (const [name, key] of Object.entries(keys)) values[name] = (table && readValue(table, name, key)) ?? key.default;
  return values;
}

/** `kernel.front` is the table `front` inside `kernel`, whose own reader must know of it; hence both read from the top. */
function readSection(name: string, section: Section, top: TableReader, warnings: Problem[]): Values {
  const [first, second] = name.split('.') as [string, string?];
  const outer = top.child(first);
  if (second === undefined && first === 'kernel') outer?.take('front');
  const table = second === undefined ? outer : outer?.child(second);
  const values = readKeys(table, section.keys);
  if (section.ours === true) table?.rest();
  else table?.rest(warnings, ', ignored');
  return values;
}

function readPlugins(top: TableReader): Record<string, TomlTable> {
  const plugins: Record<string, TomlTable> = Object.create(null);
  for (const [id, table] of top.child('plugins')?.children() ?? []) plugins[id] = table.table;
  return plugins;
}

function readTimeouts(table: TableReader | undefined): Record<string, number> {
  const timeouts: Record<string, number> = Object.assign(Object.create(null), timeoutDefaults);
  for (const name of Object.keys(table?.table ?? {})) timeouts[name] = table!.duration(name) ?? 0;
  return timeouts;
}

function readProxyPlugins(table: TableReader | undefined, warnings: Problem[]): Record<string, ProxyPlugin> {
  const proxies: Record<string, ProxyPlugin> = Object.create(null);
  for (const [name, entry] of table?.children() ?? []) {
    if (!entry.has('type')) entry.problem(undefined, `proxy_plugins.${name} has no type`);
    if (!entry.has('address')) entry.problem(undefined, `proxy_plugins.${name} has no address`);
    const values = readKeys(entry, proxyPluginKeys);
    const exported = Object.entries(values.exports as object).map(([key, value]) => [key, String(value)]);
    proxies[name] = { ...(values as unknown as ProxyPlugin), exports: Object.fromEntries(exported) };
    entry.rest(warnings, ', ignored');
  }
  return proxies;
}

function readStreamProcessors(table: TableReader | undefined, warnings: Problem[]): Record<string, StreamProcessor> {
  const processors: Record<string, StreamProcessor> = Object.create(null);
  for (const [name, entry] of table?.children() ?? []) {
    processors[name] = readKeys(entry, streamProcessorKeys) as unknown as StreamProcessor;
    entry.rest(warnings, ', ignored');
  }
  return processors;
}

function socket(values: Values, address: string): { address: string; uid: number; gid: number } {
  return { address, uid: values.uid as number, gid: values.gid as number };
}

/** Paths on the command line are relative to where it is typed. */
function fromFlag(flag: string, path: string, problems: Problem[]): string {
  if (path === '' || path.includes('\0')) problems.push({ message: `${flag} needs a path` });
  return resolve(path);
}

function levelFlag(level: string, problems: Problem[]): string {
  if (!levels.some((known) => known === level))
    problems.push({ message: `--log-level must be one of ${levels.join(', ')}, not "${level}"` });
  return level;
}

const flagPaths: Record<string, keyof ConfigFlags> = {
  root: 'root',
  state: 'state',
  'grpc.address': 'address',
  'ttrpc.address': 'address',
  'debug.level': 'logLevel',
};

function originOf(path: readonly string[], document: MergedDocument, flags: ConfigFlags): string | undefined {
  const flag = flagPaths[path.join('.')];
  if (flag !== undefined && flags[flag] !== undefined) return flag === 'logLevel' ? '--log-level' : `--${flag}`;
  const place = document.locate(path);
  if (place === undefined) return undefined;
  return place.line === undefined ? place.file : `${place.file}:${place.line}`;
}

/** What a key alone cannot tell. */
function checkTogether(config: Config, problems: Problem[], warnings: Problem[]): void {
  const at = (path: readonly string[], message: string): Problem => {
    const place = config.document.locate(path);
    return { ...place, message };
  };
  for (const key of ['root', 'state'] as const) {
    if (!config[key].startsWith('/')) problems.push(at([key], `${key} must be an absolute path, not "${config[key]}"`));
  }
  for (const key of ['temp'] as const) {
    if (config[key] !== '' && !config[key].startsWith('/'))
      problems.push(at([key], `${key} must be an absolute path, not "${config[key]}"`));
  }
  const [root, state] = [resolve(config.root), resolve(config.state)];
  if (root === state) problems.push(at(['state'], `root and state are the same directory, ${root}`));
  // What lies under state is gone after a reboot, and that must not be images.
  else if (root.startsWith(`${state}/`))
    problems.push(at(['root'], `root ${root} lies inside state ${state}, which does not survive a reboot`));
  for (const name of ['grpc', 'ttrpc', 'debug'] as const) checkSocketPath(name, config[name].address, problems, at);
  if (config.grpc.address === config.ttrpc.address)
    problems.push(at(['ttrpc', 'address'], `grpc and ttrpc have the same address, ${config.grpc.address}`));
  checkTcp(config.grpc, problems, warnings, at);
  for (const key of ['disabled_plugins', 'required_plugins'] as const) {
    const list = key === 'disabled_plugins' ? config.disabledPlugins : config.requiredPlugins;
    for (const id of list)
      if (!id.includes('.'))
        problems.push(at([key], `${key}: "${id}" is not an id such as "io.containerd.differ.v1.walking"`));
  }
  const { unresponsiveMs, killMs } = config.kernel;
  if (killMs !== 0 && killMs < unresponsiveMs)
    problems.push(at(['kernel', 'kill'], 'kernel.kill is shorter than kernel.unresponsive'));
  for (const directory of config.kernel.pluginDirs) {
    if (!directory.startsWith('/'))
      problems.push(at(['kernel', 'plugin_dirs'], `kernel.plugin_dirs: "${directory}" is not an absolute path`));
  }
}

/** sockaddr_un holds 108 bytes with the closing zero (unix(7)); libuv cuts longer paths off silently. */
const maxSocketPath = 107;

function checkSocketPath(
  name: string,
  address: string,
  problems: Problem[],
  at: (path: readonly string[], message: string) => Problem,
): void {
  const key = [name, 'address'];
  if (address === '') {
    if (name === 'grpc') problems.push(at(key, 'grpc.address is empty'));
    return;
  }
  if (!address.startsWith('/'))
    problems.push(at(key, `${name}.address must be the absolute path of a unix socket, not "${address}"`));
  const bytes = Buffer.byteLength(address);
  if (bytes > maxSocketPath)
    problems.push(
      at(key, `${name}.address is ${bytes} bytes long, a socket's path can have ${maxSocketPath}: ${address}`),
    );
}

function checkTcp(
  grpc: GrpcConfig,
  problems: Problem[],
  warnings: Problem[],
  at: (path: readonly string[], message: string) => Problem,
): void {
  if (grpc.tcpAddress === '') return;
  const key = ['grpc', 'tcp_address'];
  if (!/^(\[[0-9a-f:.]+\]|[^:\s]*):\d{1,5}$/i.test(grpc.tcpAddress))
    problems.push(at(key, `grpc.tcp_address must be HOST:PORT, not "${grpc.tcpAddress}"`));
  const missing = (['tcp_tls_cert', 'tcp_tls_key', 'tcp_tls_ca'] as const).filter((name) => {
    return { tcp_tls_cert: grpc.tcpTlsCert, tcp_tls_key: grpc.tcpTlsKey, tcp_tls_ca: grpc.tcpTlsCa }[name] === '';
  });
  if (missing.length === 0) return;
  const message = `grpc.tcp_address without ${missing.join(', ')}: whoever can connect would be root`;
  if (grpc.insecureTcp) warnings.push(at(key, `${message} (allowed by kernel.front.insecure_tcp)`));
  else problems.push(at(key, `${message}; kernel.front.insecure_tcp = true allows it`));
}
