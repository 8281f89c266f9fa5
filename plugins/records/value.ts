/** SQL values as they travel (troupe.records.v1.Value) ↔ as node:sqlite binds and returns them. */
import type { SQLInputValue, SQLOutputValue } from 'node:sqlite';
import type { Value } from 'troupe/proto/troupe/records/v1/records.ts';

export function toSql(value: Value): SQLInputValue {
  if (value.text !== undefined) return value.text;
  if (value.integer !== undefined) return value.integer;
  if (value.blob !== undefined) return value.blob;
  return value.real ?? null;
}

/** @param value from a statement that reads integers as bigint, so that a number is a REAL. */
export function fromSql(value: SQLOutputValue): Value {
  switch (typeof value) {
    case 'string':
      return { text: value };
    case 'bigint':
      return { integer: value };
    case 'number':
      return { real: value };
    default:
      return value === null ? { null: true } : { blob: value };
  }
}
