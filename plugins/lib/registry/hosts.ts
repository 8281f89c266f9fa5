/**
 * Which hosts are asked for a registry's images, in order, and how: `hosts.toml` and the certificate directories of docker, as containerd reads them
 * (containerd docs/hosts.md). Read anew for each pull, so that an edit counts at once.
 *
 *   <config_path>/<host[:port]>/            or <host_port_>, <host>, _default
 *     hosts.toml                            server, [host."URL"] in the order in which they are tried
 *     *.crt  *.cert + *.key                 without a hosts.toml: authorities, client certificates
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { Failure } from 'troupe/plugin';
import { isTable, readToml, type TomlTable } from 'troupe/toml';
import type { Connecting } from './http.ts';

export type Capability = 'pull' | 'resolve' | 'push' | 'referrers';

export interface RegistryHost {
  readonly scheme: 'http' | 'https';
  /** `example.com:5000` */
  readonly host: string;
  /** Of the API: `/v2`, or what stands before it. */
  readonly path: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly connecting: Connecting;
  /** Spoken to over TLS first, and without where the other side has none: loopback, where nobody listens in. */
  readonly plainFallback: boolean;
  /** The file that names it; empty: the default. */
  readonly source: string;
}

export interface HostOptions {
  /** Directories, searched in order; of those that do not exist nothing is expected. */
  readonly directories: readonly string[];
  /** For a host that has no file. */
  readonly defaultScheme?: string;
}

const everything: readonly Capability[] = ['pull', 'resolve', 'push', 'referrers'];
const dialTimeoutMs = 30_000;
const largestPem = 1 << 20;

/** @throws Failure InvalidArgument naming the file and what is wrong in it: a mirror that was meant to be asked must not be passed over in silence */
export function hostsOf(hostname: string, options: HostOptions): RegistryHost[] {
  for (const directory of options.directories) {
    for (const name of directoryNames(hostname)) {
      const dir = join(directory, name);
      if (!isDirectory(dir)) continue;
      const file = join(dir, 'hosts.toml');
      const exists = statSync(file, { throwIfNoEntry: false }) !== undefined;
      return exists ? fromFile(hostname, dir, file, options) : [fromCertificates(hostname, dir, options)];
    }
  }
  return [defaultHost(hostname, options, {})];
}

/** As containerd looks for them: with the port, with the port in underscores, without it, and the default of all. */
function directoryNames(hostname: string): string[] {
  if (hostname.includes('/') || hostname === '..' || hostname === '.') return ['_default'];
  const colon = hostname.lastIndexOf(':');
  if (colon <= 0 || hostname.endsWith(']')) return [hostname, '_default'];
  const [host, port] = [hostname.slice(0, colon), hostname.slice(colon + 1)];
  return [hostname, `${host}_${port}_`, host, '_default'];
}

type Given = Partial<Pick<RegistryHost, 'headers' | 'capabilities' | 'source'>> & {
  readonly connecting?: Partial<Connecting>;
};

function defaultHost(hostname: string, options: HostOptions, given: Given): RegistryHost {
  const host = hostname === 'docker.io' ? 'registry-1.docker.io' : hostname;
  const port = /:(\d+)$/.exec(host)?.[1];
  const loopback = isLoopback(host);
  const ambiguous = loopback && port !== undefined && port !== '443' && port !== '80';
  const asked =
    options.defaultScheme === 'http' || options.defaultScheme === 'https' ? options.defaultScheme : undefined;
  const scheme = asked ?? (loopback && port === '80' ? 'http' : 'https');
  return {
    scheme,
    host,
    path: '/v2',
    capabilities: given.capabilities ?? new Set(everything),
    headers: given.headers ?? {},
    connecting: connectingOf({ skipVerify: loopback, ...given.connecting }),
    plainFallback: asked === undefined && ambiguous,
    source: given.source ?? '',
  };
}

function connectingOf(given: Partial<Connecting>): Connecting {
  return { ca: [], client: [], skipVerify: false, dialTimeoutMs, ...given };
}

export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  return name === 'localhost' || name === '::1' || /^127\.\d+\.\d+\.\d+$/.test(name);
}

function fromFile(hostname: string, dir: string, file: string, options: HostOptions): RegistryHost[] {
  const refuse = (problem: string): Failure => new Failure('InvalidArgument', `${file}: ${problem}: invalid argument`);
  let table: TomlTable;
  try {
    ({ table } = readToml(file));
  } catch (error) {
    throw refuse((error as Error).message);
  }
  const named = table.host ?? {};
  if (!isTable(named)) throw refuse('host is not a table');
  const hosts = Object.entries(named).map(([url, value]) => {
    if (!isTable(value)) throw refuse(`host ${JSON.stringify(url)} is not a table`);
    return fromTable(url, value, dir, file, refuse);
  });
  const { server } = table;
  if (server !== undefined && typeof server !== 'string') throw refuse('server is not a text');
  // The registry itself comes last, unless the file gives another.
  const { host: _, server: __, ...own } = table;
  if (server !== undefined && server !== '') return [...hosts, fromTable(server, own, dir, file, refuse)];
  const given = read(own, dir, refuse);
  return [...hosts, defaultHost(hostname, options, { ...given, source: file })];
}

function fromTable(
  written: string,
  table: TomlTable,
  dir: string,
  file: string,
  refuse: (problem: string) => Failure,
): RegistryHost {
  const [, scheme] = /^([A-Za-z][A-Za-z0-9+.-]*):(?!\d)/.exec(written) ?? [];
  if (scheme !== undefined && !/^https?:\/\//.test(written))
    throw refuse(`${JSON.stringify(written)} is of scheme ${scheme}, not http:// or https://`);
  let url: URL;
  try {
    url = new URL(/^https?:\/\//.test(written) ? written : `https://${written}`);
  } catch {
    throw refuse(`${JSON.stringify(written)} is not a URL`);
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw refuse(`${JSON.stringify(written)} has more than scheme, host and path`);
  const { headers, capabilities, connecting } = read(table, dir, refuse);
  const path = url.pathname.replace(/\/+$/, '');
  return {
    scheme: url.protocol === 'http:' ? 'http' : 'https',
    host: url.host,
    path: table.override_path === true || path.endsWith('/v2') ? path : `${path}/v2`,
    capabilities: capabilities ?? new Set(everything),
    headers: headers ?? {},
    connecting: connectingOf(connecting ?? {}),
    plainFallback: false,
    source: file,
  };
}

function read(table: TomlTable, dir: string, refuse: (problem: string) => Failure): Given {
  const {
    capabilities,
    ca,
    client,
    skip_verify: skip,
    header,
    override_path: override,
    dial_timeout: dial,
    ...rest
  } = table;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) throw refuse(`there is no key ${unknown}`);
  if (skip !== undefined && typeof skip !== 'boolean') throw refuse('skip_verify is not true or false');
  if (override !== undefined && typeof override !== 'boolean') throw refuse('override_path is not true or false');
  const pem = (name: string): string => readPem(isAbsolute(name) ? name : join(dir, name), refuse);
  const dialMs = dial === undefined ? undefined : parseDuration(dial);
  if (dial !== undefined && dialMs === undefined)
    throw refuse(`dial_timeout ${JSON.stringify(dial)} is not a duration`);
  return {
    ...(capabilities !== undefined && { capabilities: capabilitiesOf(capabilities, refuse) }),
    ...(header !== undefined && { headers: headersOf(header, refuse) }),
    connecting: {
      ...(ca !== undefined && { ca: textsOf(ca, () => refuse('ca is not a file or a list of files')).map(pem) }),
      ...(client !== undefined && { client: clientsOf(client, pem, refuse) }),
      ...(skip !== undefined && { skipVerify: skip }),
      ...(dialMs !== undefined && { dialTimeoutMs: dialMs }),
    },
  };
}

function capabilitiesOf(value: unknown, refuse: (problem: string) => Failure): ReadonlySet<Capability> {
  const names = textsOf(value, () => refuse('capabilities is not a list of texts')).map((name) => name.toLowerCase());
  const unknown = names.find((name) => !everything.includes(name as Capability));
  if (unknown !== undefined) throw refuse(`there is no capability ${JSON.stringify(unknown)}`);
  return new Set(names.length === 0 ? everything : (names as Capability[]));
}

function headersOf(value: unknown, refuse: (problem: string) => Failure): Record<string, string | string[]> {
  if (!isTable(value)) throw refuse('header is not a table');
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => {
      const texts = textsOf(each, () => refuse(`header ${JSON.stringify(name)} is not a text or a list of texts`));
      if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || texts.some((text) => /[\r\n\0]/.test(text)))
        throw refuse(`header ${JSON.stringify(name)} is malformed`);
      return [name, texts.length === 1 ? texts[0]! : texts];
    }),
  );
}

/** A file with both, files with both, or pairs of files. */
function clientsOf(
  value: unknown,
  pem: (name: string) => string,
  refuse: (problem: string) => Failure,
): Connecting['client'] {
  const items = Array.isArray(value) ? value : [value];
  return items.map((item) => {
    const [cert, key = cert, ...more] = textsOf(item, () => refuse('client is not a file or a list of pairs'));
    if (cert === undefined || key === undefined || more.length > 0)
      throw refuse('client is not a file or a list of pairs');
    return { cert: pem(cert), key: pem(key) };
  });
}

function textsOf(value: unknown, refuse: () => Failure): string[] {
  if (typeof value === 'string') return [value];
  if (!Array.isArray(value) || value.some((each) => typeof each !== 'string')) throw refuse();
  return value as string[];
}

/** Go's durations, of which the units that anybody waits in. */
function parseDuration(value: unknown): number | undefined {
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  if (typeof value !== 'string' || !/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(value)) return undefined;
  return [...value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)].reduce(
    (sum, [, count, unit]) => sum + Number(count) * units[unit!]!,
    0,
  );
}

/** docker's layout: `*.crt` are authorities, `*.cert` with the `*.key` of the same name client certificates. */
function fromCertificates(hostname: string, dir: string, options: HostOptions): RegistryHost {
  const refuse = (problem: string): Failure => new Failure('InvalidArgument', `${dir}: ${problem}: invalid argument`);
  const names = readdirSync(dir).sort();
  const pem = (name: string): string => readPem(join(dir, name), refuse);
  const ca = names.filter((name) => name.endsWith('.crt')).map(pem);
  const client = names
    .filter((name) => name.endsWith('.cert'))
    .map((name) => {
      const key = `${name.slice(0, -'.cert'.length)}.key`;
      if (!names.includes(key)) throw refuse(`${name} has no ${key} beside it`);
      return { cert: pem(name), key: pem(key) };
    });
  const connecting = { ca, client, ...(ca.length > 0 && { skipVerify: false }) };
  return defaultHost(hostname, options, { connecting, source: dir });
}

function readPem(file: string, refuse: (problem: string) => Failure): string {
  try {
    const status = statSync(file);
    if (!status.isFile() || status.size > largestPem) throw refuse(`${file} is not a file with certificates`);
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw error instanceof Failure ? error : refuse((error as Error).message);
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
