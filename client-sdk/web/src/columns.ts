// Columns of a row on their way to SQLite.

import { KairosError, type Value } from './api.ts';

/** A JSON object of columns, with all digits of large integers. */
export function columnsText(columns: Record<string, Value | boolean>): string {
  const members = Object.entries(columns).map(([name, value]) => `${JSON.stringify(name)}:${valueText(name, value)}`);
  return `{${members.join(',')}}`;
}

function valueText(name: string, value: Value | boolean): string {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array || (typeof value === 'number' && !Number.isFinite(value))) {
    throw new KairosError('CLIENT-0101', `SQLite: column \`${name}\` can hold neither a BLOB nor an infinite number`);
  }
  // Booleans are integers, as everywhere.
  return JSON.stringify(typeof value === 'boolean' ? Number(value) : value);
}
