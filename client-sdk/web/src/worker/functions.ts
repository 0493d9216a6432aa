// SQL functions that the triggers, and apps, call.

import { randomId } from '../random-id.ts';
import type { SQLite } from './sqlite.js';

const UTF8 = 1; // SQLITE_UTF8
const PURE = UTF8 | 0x800; // SQLITE_DETERMINISTIC
const INTEGER = 1;
const FLOAT = 2;
const TEXT = 3;

export interface FunctionsContext {
  /** All writes of one transaction carry the same number. */
  transactionId(): number;
  putChecksum(table: string, id: string, data: string): number;
}

export function registerFunctions(sqlite: SQLite, db: number, context: FunctionsContext): void {
  const add = (name: string, flags: number, call: (result: number, values: Int32Array) => void, count = -1): void => {
    sqlite.create_function(db, name, count, flags, 0, call);
  };
  add('uuid', UTF8, (result) => sqlite.result_text(result, randomId()), 0);
  add('kairos_tx_id', UTF8, (result) => sqlite.result_int64(result, BigInt(context.transactionId())), 0);
  // kairos_row(name, value, …): a JSON object of the values that are not null.
  add('kairos_row', PURE, (result, values) => {
    const members: string[] = [];
    for (let index = 0; index + 1 < values.length; index += 2) {
      const value = jsonOf(sqlite, values[index + 1] ?? 0);
      if (value !== 'null') members.push(member(sqlite, values[index] ?? 0, value));
    }
    sqlite.result_text(result, `{${members.join(',')}}`);
  });
  // kairos_whole_row(name, value, …): a JSON object of all values.
  add('kairos_whole_row', PURE, (result, values) => {
    const members: string[] = [];
    for (let index = 0; index + 1 < values.length; index += 2) {
      members.push(member(sqlite, values[index] ?? 0, jsonOf(sqlite, values[index + 1] ?? 0)));
    }
    sqlite.result_text(result, `{${members.join(',')}}`);
  });
  // kairos_changes(name, old, new, …): a JSON object of the new values that differ from the old ones, or NULL.
  add('kairos_changes', PURE, (result, values) => {
    const members: string[] = [];
    for (let index = 0; index + 2 < values.length; index += 3) {
      const value = jsonOf(sqlite, values[index + 2] ?? 0);
      if (jsonOf(sqlite, values[index + 1] ?? 0) !== value) members.push(member(sqlite, values[index] ?? 0, value));
    }
    if (members.length === 0) sqlite.result_null(result);
    else sqlite.result_text(result, `{${members.join(',')}}`);
  });
  add('kairos_put_checksum', PURE, (result, values) => {
    const [table, id, data] = Array.from(values, (value) => String(sqlite.value(value)));
    sqlite.result_int64(result, BigInt(context.putChecksum(table ?? '', id ?? '', data ?? '')));
  }, 3);
}

const member = (sqlite: SQLite, name: number, value: string): string => `${JSON.stringify(sqlite.value(name))}:${value}`;

/** A value as JSON that has the same type again when SQLite reads it. BLOBs and infinite numbers are kept out by triggers. */
function jsonOf(sqlite: SQLite, value: number): string {
  switch (sqlite.value_type(value)) {
    case INTEGER:
      return sqlite.value_int64(value).toString();
    case FLOAT:
      return realOf(sqlite.value(value) as number);
    case TEXT:
      return JSON.stringify(sqlite.value(value));
    default:
      return 'null';
  }
}

/** With a point where the number is whole: else it would come back as an integer. */
export function realOf(number: number): string {
  const text = String(number);
  return Number.isFinite(number) && /^-?\d+$/.test(text) ? `${text}.0` : text;
}
