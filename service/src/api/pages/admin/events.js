// Warnings and errors of the log, the newest of each kind.

import { api } from './api.js';
import { byId, element, note, show, table } from './dom.js';
import { ago, count } from './format.js';

const COLUMNS = [
  { title: 'Last' },
  { title: 'Level' },
  { title: 'Code' },
  { title: 'Times', kind: 'number' },
  { title: 'What', kind: 'long' },
];

export async function refreshEvents({ status }) {
  const place = byId('events');
  const events = await api.events().catch(() => null);
  if (events === null) return show(place, note('error', 'Not known', 'The service did not say.'));
  if (events.length === 0) return show(place, element('p', {}, 'None since the service was started.'));
  const rows = events.map((event) => [
    ago(event.last_at, status.touched_at),
    element('span', { class: `level ${event.level}` }, event.level),
    event.code ? element('code', {}, event.code) : null,
    count(event.count),
    event.message,
  ]);
  show(place, table('The newest of each kind; the log has all of them', COLUMNS, rows));
}
