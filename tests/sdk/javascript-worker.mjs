// SQLite for the older SDK. Its own use of node:sqlite tells no insert id, which its sync client written in JavaScript
// needs; better-sqlite3, its other choice, is native code to be built. So this is what it asks of better-sqlite3.

import { DatabaseSync } from 'node:sqlite';
import { startPowerSyncWorker } from 'powersync-node-javascript/worker.js';

// Integers beyond 2^53 are rounded there, where node:sqlite fails.
const rounded = (value) => (typeof value === 'bigint' ? Number(value) : value);
const mapValues = (row, map) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, map(value)]));

class Statement {
  constructor(statement) {
    this.statement = statement;
    this.reader = statement.columns().length > 0;
    statement.setReadBigInts(true);
  }

  raw() {
    if (this.reader) this.statement.setReturnArrays(true);
    return this;
  }

  all(parameters = []) {
    return this.statement.all(...parameters).map((row) => (Array.isArray(row) ? row.map(rounded) : mapValues(row, rounded)));
  }

  run(parameters = []) {
    return mapValues(this.statement.run(...parameters), rounded);
  }
}

class Database {
  constructor(path) {
    this.database = new DatabaseSync(path, { allowExtension: true });
  }

  loadExtension(path, entryPoint) {
    this.database.loadExtension(path, entryPoint);
  }

  function(name, body) {
    this.database.function(name, body);
  }

  prepare(sql) {
    return new Statement(this.database.prepare(sql));
  }

  close() {
    this.database.close();
  }
}

startPowerSyncWorker({ loadBetterSqlite3: async () => Database });
