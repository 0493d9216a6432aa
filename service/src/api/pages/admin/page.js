// The page as a whole: signing in, asking again, pausing.

import { api, token } from './api.js';
import { refreshDevices, showConnections } from './connections.js';
import { byId, note, show } from './dom.js';
import { refreshEvents } from './events.js';
import { count } from './format.js';
import { lookUp } from './lookup.js';
import { phase, showReplication } from './replication.js';
import { plan, showRules, showRulesText } from './rules.js';
import { countDefinitions, showStore } from './store.js';

const REFRESH_MS = 2000;

// Which refresh is the newest: an older one has nothing to say any more.
let turn = 0;
let timer;
let isPaused = false;

const isWanted = () => token.get() && !isPaused && !document.hidden;

async function refresh() {
  clearTimeout(timer);
  const mine = ++turn;
  const isStale = () => mine !== turn || !token.get();
  try {
    const overview = await api.overview();
    if (isStale()) return;
    showSections(overview);
    await Promise.all([refreshEvents(overview), refreshDevices(overview)]);
  } catch (error) {
    if (isStale()) return;
    if (error.status === 401) return askForToken(error);
    showUnreachable(error);
  }
  if (mine === turn && isWanted()) timer = setTimeout(refresh, REFRESH_MS);
}

function showSections(overview) {
  const { status } = overview;
  byId('sign-in').hidden = true;
  for (const id of ['sections', 'pause', 'sign-out']) byId(id).hidden = false;
  const isGood = status.ready && status.replication.phase === 'streaming' && !status.rules.building;
  showState(isGood ? 'good' : status.replication.error ? 'bad' : 'busy', `${phase(status.replication)}, ${status.ready ? 'ready' : 'not ready'}`);
  byId('refreshed').textContent = `Version ${status.version}, as of ${new Date().toLocaleTimeString()}`;
  show(byId('problems'), ...problems(overview));
  showReplication(overview);
  showConnections(overview);
  showStore(overview);
  showRules(overview);
}

function problems({ status, reasons }) {
  const reason = (name) => reasons.find((each) => each.of === name);
  const [error, refusal] = [reason('error'), reason('refusal')];
  return [
    status.reason ? note('warning', 'Clients cannot sync', status.reason) : null,
    error ? note('error', `Replication failed with ${error.code} and is tried again`, error.message) : null,
    refusal ? note('error', `The rules that are wanted were refused with ${refusal.code}; the old ones stay`, refusal.message) : null,
    ...damages(status),
    status.rules.building ? note('warning', 'Other rules are being built', 'Clients are served by the old ones until then.') : null,
  ].filter(Boolean);
}

function damages({ damages }) {
  if (!damages) return [];
  const told = ({ definition, bucket_count: all, mending_count: mending }) => `${definition}: ${count(all)}, of which ${count(mending)} are being built again`;
  return [
    damages.is_beyond_repair ? note('error', 'The file of the bucket store is damaged (STORE-0104)', 'Look at the disk, stop the service and run kairos-sync store delete --yes; all is built again from Postgres.') : null,
    damages.has_damaged_rows ? note('warning', 'Stored rows are damaged (STORE-0109): look at the disk', 'Their tables are copied again, and what they went into is built anew; devices get nothing new until then.') : null,
    damages.definitions.length > 0 ? note('warning', 'Damaged buckets wait to be built again: look at the disk', damages.definitions.map(told).join('; ')) : null,
  ];
}

function showState(mood, text) {
  const state = byId('state');
  if (state.textContent !== text) state.textContent = text;
  state.dataset.mood = mood;
}

function showUnreachable(error) {
  const text = error.status === 429 ? 'Too many requests of operators' : error.status ? `The service answered ${error.code}` : 'The service does not answer';
  showState('bad', text);
  const hint = error.status ? error.message : 'It may be stopped, or the network is away. It is asked again; what is below is old.';
  show(byId('problems'), note('error', text, hint));
}

function askForToken(error) {
  token.forget();
  byId('sign-in').hidden = false;
  for (const id of ['sections', 'pause', 'sign-out']) byId(id).hidden = true;
  showState('unknown', 'Not asked');
  byId('refreshed').textContent = '';
  const text = 'Show one that stands in its configuration as api: { tokens: [ … ] }, or set KAIROS_ADMIN_TOKEN where the service runs and start it again.';
  show(byId('sign-in-problem'), ...(error ? [note('error', `The service does not accept this token (${error.code})`, text)] : []));
  byId('token').value = '';
  byId('token').focus();
}

function pauseOrGoOn() {
  isPaused = !isPaused;
  byId('pause').textContent = isPaused ? 'Go on' : 'Pause';
  if (isPaused) clearTimeout(timer);
  else refresh();
}

byId('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  token.set(byId('token').value.trim());
  refresh();
});
byId('sign-out').addEventListener('click', () => askForToken());
byId('pause').addEventListener('click', pauseOrGoOn);
byId('count').addEventListener('click', countDefinitions);
byId('plan').addEventListener('submit', plan);
byId('lookup').addEventListener('submit', lookUp);
byId('devices-shown').addEventListener('toggle', () => isWanted() && refresh());
byId('rules-shown').addEventListener('toggle', ({ target }) => target.open && showRulesText());
document.addEventListener('visibilitychange', () => (isWanted() ? refresh() : clearTimeout(timer)));

// A link may bring the token behind its `#`, which no server sees.
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  token.set(given);
  history.replaceState(null, '', location.pathname);
}
if (token.get()) refresh();
else askForToken();
