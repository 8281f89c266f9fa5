/** The config keys that a manifest declares, and the check of a value against one. */
import type { TableReader } from '../config/table.ts';
import { isTable } from '../config/toml.ts';

/** TOML's own words, and three of ours: duration (to the plugin: milliseconds), size (bytes), strings. `table` and `tables` are handed over as they are. */
export const configTypes = [
  'string',
  'boolean',
  'integer',
  'float',
  'duration',
  'size',
  'strings',
  'table',
  'tables',
] as const;
export type ConfigType = (typeof configTypes)[number];

export interface ConfigKey {
  readonly type: ConfigType;
  /** As the plugin receives it: milliseconds, bytes, plain numbers. */
  readonly default: unknown;
  /** One sentence, shown by `config default` and `explain`. */
  readonly doc: string;
  /** Only for strings: the values allowed. */
  readonly choices?: readonly string[];
  /** Only for integers. */
  readonly min?: number;
  readonly max?: number;
}

const spellings: Record<string, ConfigType> = { bool: 'boolean', int: 'integer' };

const empty: Record<ConfigType, unknown> = {
  string: '',
  boolean: false,
  integer: 0,
  float: 0,
  duration: 0,
  size: 0,
  strings: [],
  table: {},
  tables: [],
};

export function readConfigKeys(table: TableReader | undefined): Record<string, ConfigKey> {
  const keys: [string, ConfigKey][] = [];
  for (const [name, entry] of table?.children() ?? []) {
    const written = entry.string('type');
    const type = configTypes.find((t) => t === (spellings[written ?? ''] ?? written));
    if (type === undefined) entry.problem('type', `config.${name}: type must be one of ${configTypes.join(', ')}`);
    const doc = entry.string('doc');
    if (doc === undefined) entry.problem(undefined, `config.${name} has no doc`);
    const choices = entry.strings('choices');
    const min = entry.integer('min');
    const max = entry.integer('max');
    const bounds = {
      ...(choices && { choices }),
      ...(min !== undefined && { min }),
      ...(max !== undefined && { max }),
    };
    const key = { type: type ?? 'table', doc: doc ?? '', ...bounds, default: undefined };
    entry.take('default');
    keys.push([
      name,
      { ...key, default: type === undefined ? undefined : (readValue(entry, 'default', key) ?? empty[type]) },
    ]);
    entry.rest();
  }
  return Object.fromEntries(keys);
}

/** The value of `name` in the table as the plugin receives it; undefined when it is absent, or wrong and noted as a problem. */
export function readValue(table: TableReader, name: string, key: ConfigKey): unknown {
  switch (key.type) {
    case 'string':
      return key.choices === undefined ? table.string(name) : table.oneOf(name, key.choices);
    case 'integer':
      return table.integer(name, key.min, key.max);
    case 'table':
      return plain(table.child(name)?.table);
    case 'tables':
      return plain(table.tables(name));
    default:
      return table[key.type](name);
  }
}

/** Free-form TOML as data to send to a worker: integers become numbers where that is exact and stay bigint where not. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (Array.isArray(value)) return value.map(plain);
  if (!isTable(value)) return value;
  const copy: Record<string, unknown> = Object.create(null);
  for (const [key, item] of Object.entries(value)) copy[key] = plain(item);
  return copy;
}
