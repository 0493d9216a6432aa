// The package's public names.

export * from './api.ts';
export { Schema, type ColumnKind, type ColumnMap, type TableOptions } from './schema.ts';
export { databaseName } from './database-name.ts';
export { open } from './open.ts';
export { testConnection } from './test-connection.ts';
