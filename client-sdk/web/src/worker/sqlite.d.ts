// As much of wa-sqlite as is used here.

import type { Value } from '../api.ts';

/** The Emscripten module. */
export interface Module {
  readonly _brand: 'module';
}

/** Numbers are addresses in the module's memory. */
export interface SQLite {
  open_v2(name: string, flags?: number, vfs?: string): Promise<number>;
  close(db: number): Promise<number>;
  exec(db: number, sql: string): Promise<number>;
  statements(db: number, sql: string, options: { unscoped: true }): AsyncIterable<number>;
  finalize(statement: number): Promise<number>;
  reset(statement: number): Promise<number>;
  clear_bindings(statement: number): number;
  step(statement: number): Promise<number>;
  row(statement: number): Value[];
  column_names(statement: number): string[];
  bind_parameter_count(statement: number): number;
  bind_text(statement: number, index: number, value: string): number;
  bind_double(statement: number, index: number, value: number): number;
  bind_int64(statement: number, index: number, value: bigint): number;
  bind_blob(statement: number, index: number, value: Uint8Array): number;
  bind_null(statement: number, index: number): number;
  changes(db: number): number;
  get_autocommit(db: number): number;
  create_function(
    db: number,
    name: string,
    argumentCount: number,
    flags: number,
    data: number,
    call: (context: number, values: Int32Array) => void,
  ): number;
  result_text(context: number, value: string): void;
  result_int64(context: number, value: bigint): void;
  result_null(context: number): void;
  value(value: number): Value;
  value_type(value: number): number;
  value_int64(value: number): bigint;
  set_authorizer(
    db: number,
    authorize: (data: number, action: number, first: string, second: string, database: string, by: string) => number,
    data: number,
  ): number;
  update_hook(db: number, changed: (kind: number, database: string, table: string, rowId: bigint) => void): void;
  vfs_register(vfs: FileSystem): number;
}

/** A VFS in wa-sqlite's words. */
export interface FileSystem {
  readonly name: string;
  close(): Promise<void> | void;
}

export function Factory(module: Module): SQLite;
export function load(options: { locateFile(name: string): string }): Promise<Module>;
/** The files in a folder of the browser's private file system. */
export function openFiles(folder: string, module: Module): Promise<FileSystem>;
