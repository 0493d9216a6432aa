// Who is connected.

import { api } from './api.js';
import { byId, element, facts, note, show, table } from './dom.js';
import { ago, bytes, count, counted } from './format.js';

const checkpoint = (moment, now) => (moment ? ['operation ', moment.op_id, ', ', ago(moment.at, now)] : 'none yet');

export function showConnections({ connections, status }) {
  const oldest = connections.oldest_completed;
  show(byId('connections'), facts([
    ['Open streams', `${count(connections.count)} of at most ${count(connections.count_max)}`],
    ['Users', count(connections.user_count)],
    ['Over HTTP', count(connections.http_count)],
    ['Over WebSockets', count(connections.websocket_count)],
    ['Without a checkpoint', count(connections.waiting_count)],
    ['Oldest checkpoint', connections.count === 0 ? null : checkpoint(oldest, status.touched_at)],
    ['Sent over them', bytes(connections.bytes_sent)],
  ]));
}

// Asked for only while it is looked at.
export async function refreshDevices({ status }) {
  if (!byId('devices-shown').open) return;
  const { count: all, connections } = await api.connections().catch((error) => ({ error, connections: [] }));
  if (all === undefined) return show(byId('devices'), note('error', 'Not known', 'The service did not say who is connected.'));
  if (all === 0) return show(byId('devices'), element('p', {}, 'Nobody.'));
  const columns = [
    { title: 'User' },
    { title: 'Device' },
    { title: 'Carrier' },
    { title: 'Since' },
    { title: 'Complete checkpoint' },
    { title: 'Buckets', kind: 'number' },
    { title: 'Sent', kind: 'number' },
  ];
  const rows = connections.map((each) => [
    each.user_id,
    each.client_id ?? each.user_agent,
    each.carrier,
    ago(each.since, status.touched_at),
    element('span', {}, checkpoint(each.completed, status.touched_at)),
    count(each.bucket_count),
    bytes(each.bytes_sent),
  ]);
  const caption = all > connections.length ? `The oldest ${connections.length} of ${counted(all, 'stream')}` : counted(all, 'stream');
  show(byId('devices'), table(caption, columns, rows));
}
