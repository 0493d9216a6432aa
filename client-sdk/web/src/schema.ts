// The tables an app sees.

import { KairosError } from './api.ts';

/** Also `text`: dates, UUIDs, JSON and numbers of any precision. Also `integer`: booleans, as 0 and 1. */
export type ColumnKind = 'text' | 'integer' | 'real';

/** Columns beside `id`, the text that identifies a row, which is always there. */
export interface ColumnMap {
  [column: string]: ColumnKind;
}

export interface TableOptions {
  /** Rows stay on this device. When the table is declared without it later, they are uploaded. */
  localOnly?: boolean;
  /** New rows are uploaded and not kept here; nothing is changed or deleted. */
  insertOnly?: boolean;
  /** Uploads carry what was before, which conflict strategies need. */
  trackPrevious?: boolean;
  /** Each a list of columns. */
  indexes?: string[][];
}

export interface Table {
  name: string;
  columns: { name: string; kind: ColumnKind }[];
  localOnly: boolean;
  insertOnly: boolean;
  trackPrevious: boolean;
  indexes: string[][];
}

/** Every column is passed to SQL functions that take at most 1000 arguments, three per column. */
const COLUMNS_MAX = 300;

const KINDS: readonly string[] = ['text', 'integer', 'real'];

/** The tables of an app, by name. Rows of tables that are not declared are kept, and appear once an app declares them. */
export class Schema {
  readonly tables: readonly Table[];

  constructor(tables: Record<string, ColumnMap | ({ columns: ColumnMap } & TableOptions)>) {
    this.tables = Object.entries(tables).map(([name, declared]) => tableOf(name, declared));
    const names = this.tables.map((table) => table.name.toLowerCase());
    for (const table of this.tables) {
      validate(table);
      if (names.indexOf(table.name.toLowerCase()) !== names.lastIndexOf(table.name.toLowerCase())) {
        refuse(`table \`${table.name}\` is declared twice`);
      }
    }
  }
}

function tableOf(name: string, declared: ColumnMap | ({ columns: ColumnMap } & TableOptions)): Table {
  // A column of this name has a kind, which is a text.
  const isWhole = typeof declared.columns === 'object';
  const columns = (isWhole ? declared.columns : declared) as ColumnMap;
  const options = (isWhole ? declared : {}) as TableOptions;
  return {
    name,
    columns: Object.entries(columns).map(([column, kind]) => ({ name: column, kind })),
    localOnly: options.localOnly ?? false,
    insertOnly: options.insertOnly ?? false,
    trackPrevious: options.trackPrevious ?? false,
    indexes: options.indexes ?? [],
  };
}

function validate({ name, columns, indexes, localOnly, insertOnly }: Table): void {
  if (name === '' || name.includes('\0') || /^(kairos_|sqlite_)/i.test(name)) {
    refuse(`\`${name}\` cannot be the name of a table: it is empty or begins with \`kairos_\` or \`sqlite_\``);
  }
  if (localOnly && insertOnly) {
    refuse(`table \`${name}\` is both local-only and insert-only: its rows would be nowhere`);
  }
  if (columns.length > COLUMNS_MAX) {
    refuse(`table \`${name}\` has more than ${COLUMNS_MAX} columns; declare only those the app uses`);
  }
  const known = new Set(['id']);
  for (const column of columns) {
    if (column.name === '' || /["\0\\]/.test(column.name)) {
      refuse(`\`${column.name}\` cannot be the name of a column of table \`${name}\`: it is empty or has quotes or backslashes`);
    }
    if (!KINDS.includes(column.kind)) {
      refuse(`column \`${column.name}\` of table \`${name}\` must be \`text\`, \`integer\` or \`real\``);
    }
    if (known.has(column.name.toLowerCase())) {
      refuse(`column \`${column.name}\` of table \`${name}\` is declared twice (\`id\` is always there)`);
    }
    known.add(column.name.toLowerCase());
  }
  for (const index of indexes) {
    if (index.length === 0) refuse(`an index of table \`${name}\` has no columns`);
    const missing = index.find((column) => !known.has(column.toLowerCase()));
    if (missing !== undefined) {
      refuse(`an index of table \`${name}\` names column \`${missing}\`, which is not declared`);
    }
  }
}

function refuse(message: string): never {
  throw new KairosError('CLIENT-0102', message);
}
