// How replication is: phase, lag, the slot, copies of tables.

import { bar, element, facts, show, byId } from './dom.js';
import { ago, bytes, count, counted, seconds } from './format.js';

const PHASES = {
  connecting: 'Connecting to the source',
  creating_slot: 'Creating the slot',
  copying: 'Copying tables',
  streaming: 'Streaming',
};

const STAGES = {
  waiting: 'waits for its turn',
  waiting_for_stream: 'waits for the stream, which is behind',
  finishing: 'finishing',
};

export const phase = ({ phase: name }) => PHASES[name] ?? name.replaceAll('_', ' ');

export function showReplication({ status }) {
  const { replication, touched_at: now } = status;
  show(byId('replication'), facts([
    ['Phase', phase(replication)],
    ['Behind the source', replication.lag_bytes === 0 ? 'nothing' : `${bytes(replication.lag_bytes)} of WAL`],
    ['Newest commit took', replication.delay_ms === null ? 'none since the start' : seconds(replication.delay_ms / 1000)],
    ['Last message', ago(replication.last_message_at, now)],
    ['Newest checkpoint', ago(replication.checkpoint_at, now)],
    ['Slot', replication.slot],
    ['Last comparison of all', replication.last_comparison],
  ]));
  showSlot(replication);
  showCopies(replication);
}

function showSlot({ slot_retained_bytes: kept, slot_budget_bytes: budget }) {
  const place = byId('slot');
  if (kept === null) return show(place);
  const text = budget === null ? `${bytes(kept)}, no bound is known` : `${bytes(kept)} of ${bytes(budget)}`;
  const meter = budget === null ? null : element('meter', {
    min: 0, max: budget, low: budget / 2, high: budget * 0.8, optimum: 0, value: Math.min(kept, budget), 'aria-label': `WAL kept for the slot: ${text}`,
  });
  show(place, element('div', { class: 'bar' },
    element('div', {}, element('span', {}, 'WAL kept for the slot'), element('span', { class: 'hint' }, text)), meter));
}

function showCopies({ copies, copy_seconds_left: left }) {
  if (copies.length === 0) return show(byId('copies'));
  const rest = left === null ? '' : `, about ${seconds(left)} left`;
  show(byId('copies'),
    element('h3', {}, `${counted(copies.length, 'table')} to copy${rest}`),
    copies.slice(0, 20).map(copyBar),
    copies.length > 20 ? element('p', { class: 'hint' }, `and ${count(copies.length - 20)} more`) : null);
}

function copyBar(copy) {
  const rows = copy.rows_done > 0 ? `, ${counted(copy.rows_done, 'row')}` : '';
  const left = copy.seconds_left === null ? '' : `, ${seconds(copy.seconds_left)} left`;
  const stage = STAGES[copy.stage] ? `, ${STAGES[copy.stage]}` : '';
  const size = copy.bytes_total > 0 ? `${bytes(copy.bytes_done)} of ${bytes(copy.bytes_total)}` : 'not measured yet';
  const text = `${size}${rows}${stage}${left}`;
  return bar(copy.table, text, copy.bytes_done, copy.bytes_total);
}
