/**
 * What a writer may do: write its own tables, which start with its prefix, and read all. SQLite asks at prepare time, once per statement
 * text, because statements are kept prepared per writer.
 *
 * Triggers are not asked about: they were written by a migration, and are how a noun's deletion reaches records_outbox, records_trash
 * and other nouns' tables.
 */
import { constants } from 'node:sqlite';

/** Tables of records that others may write directly: action and table → prefixes, '*' for all. */
const granted: { readonly [actionAndTable: string]: readonly string[] } = {
  'insert records_namespace': ['namespaces'],
  'update records_namespace': ['namespaces'],
  'delete records_namespace': ['namespaces'],
  'insert records_lease_resource': ['leases'],
  'delete records_lease_resource': ['leases'],
  'delete records_outbox': ['events'],
  // The owner of trash deletes the row after the file.
  'delete records_trash': ['*'],
};

const actions: { readonly [code: number]: 'insert' | 'update' | 'delete' } = {
  [constants.SQLITE_INSERT]: 'insert',
  [constants.SQLITE_UPDATE]: 'update',
  [constants.SQLITE_DELETE]: 'delete',
};

const harmless = new Set([
  constants.SQLITE_SELECT,
  constants.SQLITE_READ,
  constants.SQLITE_FUNCTION,
  constants.SQLITE_RECURSIVE,
]);

/**
 * The authorizer's answer to one action of a statement of `writer`.
 *
 * @param trigger innermost trigger or view on whose behalf the action happens; null for the statement itself.
 */
export function authorize(
  writer: string,
  action: number,
  table: string | null,
  functionName: string | null,
  trigger: string | null,
): number {
  if (harmless.has(action)) return functionName === 'load_extension' ? constants.SQLITE_DENY : constants.SQLITE_OK;
  const verb = actions[action];
  // Everything else (PRAGMA, ATTACH, transactions, schema) is the migrations' and the engine's.
  if (verb === undefined || table === null) return constants.SQLITE_DENY;
  if (trigger !== null) return constants.SQLITE_OK;
  if (writer !== '' && writer !== 'records' && table.startsWith(`${writer}_`)) return constants.SQLITE_OK;
  const grant = granted[`${verb} ${table}`];
  return grant?.includes(writer) || grant?.includes('*') ? constants.SQLITE_OK : constants.SQLITE_DENY;
}
