/**
 * A plugin's manifest, `plugin.toml`: everything the kernel must know about a plugin before any of its code runs.
 *
 * Durations are milliseconds and sizes bytes or MiB as the name says. What a manifest leaves out has its default filled in here, so
 * that no reader of a Manifest decides about defaults.
 */
import { basename, dirname, join } from 'node:path';
import { type Problem, ProblemsError } from '../config/problem.ts';
import { TableReader } from '../config/table.ts';
import { parseToml, readToml, type TomlDocument } from '../config/toml.ts';
import { type ConfigKey, readConfigKeys } from './config-key.ts';
import { isRange, parseVersion } from './version.ts';

/** The version of `troupe/plugin` that this kernel offers. */
export const pluginApi = 1;

/** What a reload does to an open stream or unbounded call of a method: it moves to the new generation, or ends in its own time on the old one. */
export type OnReload = 'migrate' | 'finish';
export type Priority = 'control' | 'interactive' | 'bulk';
export type ProxyType = 'snapshot' | 'content' | 'diff';

/** Only what a manifest says about a method; an absent field means a plain unary call with the defaults of the bus. */
export interface MethodManifest {
  readonly onReload?: OnReload;
  readonly unbounded?: boolean;
  readonly deadlineMs?: number;
  readonly priority?: Priority;
  readonly idempotent?: boolean;
}

export interface ServeManifest {
  /** `major.minor.patch`, default 1.0.0. */
  readonly version: string;
  /** The front routes it. */
  readonly public: boolean;
  /** One of several providers of the same contract. */
  readonly name?: string;
  /** Absolute path of the .proto file of a contract that is not in proto/. */
  readonly proto?: string;
  readonly methods: Readonly<Record<string, MethodManifest>>;
}

export interface UseManifest {
  readonly range: string;
  /** No provider is no problem. Written `{ version = "1", optional = true }`. */
  readonly optional: boolean;
}

export interface Manifest {
  readonly api: number;
  /** `TYPE.NAME`; the key in the config. */
  readonly id: string;
  readonly type: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly requires: readonly string[];
  readonly wants: readonly string[];
  readonly after: readonly string[];
  readonly restart: 'permanent' | 'transient' | 'temporary';
  readonly limits: { readonly softMb: number; readonly hardMb: number };
  readonly state: { readonly version: number; readonly reads: readonly number[] };
  readonly serves: Readonly<Record<string, ServeManifest>>;
  readonly uses: Readonly<Record<string, UseManifest>>;
  readonly config: Readonly<Record<string, ConfigKey>>;
  /** `exclusive`: every call ends before suspend. */
  readonly reload: 'hold' | 'exclusive';
  /** Plugins of one group are restarted together as `strategy` says. Default: a group of its own. */
  readonly group: string;
  readonly strategy: 'one_for_one' | 'rest_for_one' | 'one_for_all';
  /** Pauses between restarts grow from `minMs` to `maxMs`; more than `restarts` within `withinMs` and the group gives up. */
  readonly backoff: {
    readonly minMs: number;
    readonly maxMs: number;
    readonly restarts: number;
    readonly withinMs: number;
  };
  /**
   * `startMs` is for `start` and for `activate`. To load the code has longer by default: that takes processor time, of which a machine that is
   * busy sixteen times over has been seen to give too little in 10 s, and waits for nothing. `deadlines.start` is for all three.
   */
  readonly deadlines: { readonly loadMs: number; readonly startMs: number; readonly stopMs: number };
  /** Prefix of the tables that it may write; empty when it keeps no records. Its migrations lie in `migrations/`. */
  readonly records: { readonly prefix: string };
  /** Name of the worker it shares with others when the config says `threads = "lean"`; without one it never shares. */
  readonly thread?: string;
  /** The next three are only shown, by Introspection. */
  readonly capabilities: readonly string[];
  /** `os/arch[/variant]`. */
  readonly platforms: readonly string[];
  readonly exports: Readonly<Record<string, string>>;
  /** It is no plugin itself, but what one is made from for every `[proxy_plugins.NAME]` of this type (proxies.ts). */
  readonly proxies?: ProxyType;
  /** Absolute path of the plugin's folder. */
  readonly dir: string;
  readonly file: string;
}

const segment = '[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*';
const idPattern = new RegExp(`^${segment}(?:\\.${segment})+$`);
const contractPattern = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$/;
const methodPattern = /^[A-Za-z_]\w*$/;

export function isPluginId(text: string): boolean {
  return text.length <= 200 && idPattern.test(text);
}

/** `io.containerd.snapshotter.v1.overlayfs` → type `io.containerd.snapshotter.v1`, name `overlayfs`: up to the last dot, and after it. */
export function splitId(id: string): { type: string; name: string } {
  const dot = id.lastIndexOf('.');
  return { type: id.slice(0, dot), name: id.slice(dot + 1) };
}

/** @throws ProblemsError with everything that is wrong with the text. `file` is the manifest's absolute path; its folder becomes `dir`. */
export function parseManifest(text: string, file: string): Manifest {
  return fromDocument(parseToml(text, file));
}

/** @throws ProblemsError as parseManifest, or when there is no readable `plugin.toml` in the folder. */
export function loadManifest(dir: string): Manifest {
  return fromDocument(readToml(join(dir, 'plugin.toml')));
}

function fromDocument(document: TomlDocument): Manifest {
  const problems: Problem[] = [];
  const top = new TableReader(document, problems);
  const id = readId(top);
  const manifest: Manifest = {
    api: readApi(top),
    id,
    ...splitId(id),
    aliases: readIds(top, 'aliases'),
    requires: readIds(top, 'requires'),
    wants: readIds(top, 'wants'),
    after: readIds(top, 'after'),
    restart: top.oneOf('restart', ['permanent', 'transient', 'temporary']) ?? 'permanent',
    limits: readLimits(top.child('limits')),
    state: readState(top.child('state')),
    serves: readServes(top.child('serves'), dirname(document.file)),
    uses: readUses(top.child('uses')),
    config: readConfigKeys(top.child('config')),
    reload: top.oneOf('reload', ['hold', 'exclusive']) ?? 'hold',
    group: top.string('group') ?? id,
    strategy: top.oneOf('strategy', ['one_for_one', 'rest_for_one', 'one_for_all']) ?? 'one_for_one',
    backoff: readBackoff(top.child('backoff')),
    deadlines: readDeadlines(top.child('deadlines')),
    records: readRecords(top.child('records')),
    ...optional('thread', top.string('thread')),
    capabilities: top.strings('capabilities') ?? [],
    platforms: top.strings('platforms') ?? [],
    exports: readExports(top.child('exports')),
    ...optional('proxies', top.oneOf<ProxyType>('proxies', ['snapshot', 'content', 'diff'])),
    dir: dirname(document.file),
    file: document.file,
  };
  top.rest();
  if (problems.length > 0) throw new ProblemsError(problems);
  return manifest;
}

/** `{ [key]: value }`, or nothing: a field that is absent rather than undefined. */
function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: V });
}

function readApi(top: TableReader): number {
  if (!top.has('api'))
    top.problem(
      undefined,
      `api is missing: the version of troupe/plugin that this plugin was written for, now ${pluginApi}`,
    );
  const api = top.integer('api') ?? pluginApi;
  if (api !== pluginApi)
    top.problem('api', `written for version ${api} of troupe/plugin, this kernel offers ${pluginApi}`);
  return api;
}

function readId(top: TableReader): string {
  if (!top.has('id'))
    top.problem(undefined, `id is missing: TYPE.NAME, such as "io.example.v1.${basename(top.document.file, '.toml')}"`);
  const id = top.string('id') ?? 'missing.id';
  if (!isPluginId(id))
    top.problem('id', `id "${id}" is not TYPE.NAME: parts of letters, digits, - and _, joined by dots`);
  return id;
}

function readIds(top: TableReader, key: string): string[] {
  const ids = top.strings(key) ?? [];
  for (const id of ids) if (!isPluginId(id)) top.problem(key, `${key}: "${id}" is neither an id nor a type`);
  return ids;
}

function readLimits(table: TableReader | undefined): Manifest['limits'] {
  const softMb = table?.integer('soft_mb', 8, 65_536) ?? 128;
  const hardMb = table?.integer('hard_mb', 8, 65_536) ?? Math.max(512, softMb * 4);
  if (softMb > hardMb) table?.problem('soft_mb', `limits.soft_mb ${softMb} is above limits.hard_mb ${hardMb}`);
  table?.rest();
  return { softMb, hardMb };
}

function readState(table: TableReader | undefined): Manifest['state'] {
  const version = table?.integer('version', 1, 2 ** 31 - 1) ?? 1;
  const reads = table?.integers('reads') ?? [version];
  // Without its own version in the list a plugin could not even be reloaded with the build it runs.
  if (!reads.includes(version)) table?.problem('reads', `state.reads must include state.version, ${version}`);
  table?.rest();
  return { version, reads };
}

function readBackoff(table: TableReader | undefined): Manifest['backoff'] {
  const minMs = table?.duration('min') ?? 0;
  const maxMs = table?.duration('max') ?? 1600;
  if (minMs > maxMs) table?.problem('min', 'backoff.min is longer than backoff.max');
  const restarts = table?.integer('restarts', 0, 1000) ?? 5;
  const withinMs = table?.duration('within') ?? 30_000;
  table?.rest();
  return { minMs, maxMs, restarts, withinMs };
}

function readDeadlines(table: TableReader | undefined): Manifest['deadlines'] {
  const start = table?.duration('start');
  const deadlines = { loadMs: start ?? 60_000, startMs: start ?? 10_000, stopMs: table?.duration('stop') ?? 5000 };
  table?.rest();
  return deadlines;
}

function readRecords(table: TableReader | undefined): Manifest['records'] {
  const prefix = table?.string('prefix') ?? '';
  if (prefix !== '' && !/^[a-z][a-z0-9]*$/.test(prefix))
    table?.problem('prefix', `records.prefix "${prefix}" is not lower-case letters and digits`);
  table?.rest();
  return { prefix };
}

function readExports(table: TableReader | undefined): Record<string, string> {
  const found: [string, string][] = [];
  for (const key of Object.keys(table?.table ?? {})) found.push([key, table!.string(key) ?? '']);
  return Object.fromEntries(found);
}

function readUses(table: TableReader | undefined): Record<string, UseManifest> {
  const uses: [string, UseManifest][] = [];
  for (const contract of Object.keys(table?.table ?? {})) {
    if (!contractPattern.test(contract)) table!.problem(contract, `"${contract}" is not the full name of a service`);
    const inline = typeof table!.table[contract] === 'string' ? undefined : table!.child(contract);
    const range = (inline === undefined ? table!.string(contract) : inline.string('version')) ?? '*';
    if (!isRange(range))
      table!.problem(contract, `uses: "${range}" is not a range of versions, such as "1" or ">=1.2 <3"`);
    uses.push([contract, { range, optional: inline?.boolean('optional') ?? false }]);
    inline?.rest();
  }
  return Object.fromEntries(uses);
}

function readServes(table: TableReader | undefined, dir: string): Record<string, ServeManifest> {
  const serves: [string, ServeManifest][] = [];
  for (const [contract, entry] of table?.children() ?? []) {
    if (!contractPattern.test(contract)) entry.problem(undefined, `"${contract}" is not the full name of a service`);
    const version = entry.string('version') ?? '1.0.0';
    if (parseVersion(version) === undefined) entry.problem('version', `version "${version}" is not MAJOR.MINOR.PATCH`);
    const proto = entry.string('proto');
    serves.push([
      contract,
      {
        version,
        public: entry.boolean('public') ?? false,
        ...optional('name', entry.string('name')),
        ...optional('proto', proto === undefined ? undefined : join(dir, proto)),
        methods: readMethods(entry.child('methods')),
      },
    ]);
    entry.rest();
  }
  return Object.fromEntries(serves);
}

function readMethods(table: TableReader | undefined): Record<string, MethodManifest> {
  const methods: [string, MethodManifest][] = [];
  for (const [method, entry] of table?.children() ?? []) {
    if (!methodPattern.test(method)) entry.problem(undefined, `"${method}" is not the name of a method`);
    const unbounded = entry.boolean('unbounded');
    const deadlineMs = entry.duration('deadline');
    if (unbounded === true && deadlineMs !== undefined)
      entry.problem('deadline', `method ${method} is unbounded and has a deadline`);
    methods.push([
      method,
      {
        ...optional('onReload', entry.oneOf<OnReload>('on_reload', ['migrate', 'finish'])),
        ...optional('unbounded', unbounded),
        ...optional('deadlineMs', deadlineMs),
        ...optional('priority', entry.oneOf<Priority>('priority', ['control', 'interactive', 'bulk'])),
        ...optional('idempotent', entry.boolean('idempotent')),
      },
    ]);
    entry.rest();
  }
  return Object.fromEntries(methods);
}
