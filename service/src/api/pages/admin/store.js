// What the bucket store holds.

import { api } from './api.js';
import { byId, facts, note, show, table } from './dom.js';
import { bytes, count } from './format.js';

// Stores up to this size are counted without being asked.
const COUNTED_AT_ONCE_BYTES = 64e6;

let wasCounted = false;

export function showStore({ store, status }) {
  show(byId('store'), facts([
    ['Rows', count(store.row_count)],
    ['Buckets', count(store.bucket_count)],
    ['Operations', count(store.operation_count)],
    ['On disk', bytes(store.size_bytes)],
    ['Clients may see', store.checkpoint ? `operation ${store.checkpoint.op_id}, ${store.checkpoint.lsn} of the source` : 'nothing yet'],
  ]));
  if (!wasCounted && store.checkpoint && store.size_bytes < COUNTED_AT_ONCE_BYTES) countDefinitions();
  byId('counted').dataset.now = status.touched_at;
}

export async function countDefinitions() {
  wasCounted = true;
  const button = byId('count');
  button.disabled = true;
  try {
    showDefinitions(await api.definitions());
    byId('counted').textContent = `Counted at ${new Date(byId('counted').dataset.now ?? Date.now()).toLocaleTimeString()}.`;
  } catch (error) {
    show(byId('definitions'), note('error', error.code ?? 'No answer', error.message));
  } finally {
    button.disabled = false;
  }
}

function showDefinitions(definitions) {
  const columns = [
    { title: 'Definition' },
    { title: 'Buckets', kind: 'number' },
    { title: 'Rows', kind: 'number' },
    { title: 'Operations', kind: 'number' },
    { title: 'To download', kind: 'number' },
    { title: 'Stored', kind: 'number' },
  ];
  const rows = definitions.map((each) => [
    each.definition,
    count(each.bucket_count),
    count(each.row_count),
    count(each.operation_count),
    bytes(each.json_bytes),
    bytes(each.stored_bytes),
  ]);
  show(byId('definitions'), table(rows.length === 0 ? 'There are no buckets.' : 'A row that is in several buckets counts for each', columns, rows));
}
