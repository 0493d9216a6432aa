// Rules: which are in force, how far others are, and what others would do.

import { api } from './api.js';
import { bar, byId, element, facts, note, show } from './dom.js';
import { count, counted } from './format.js';

const CHANGES = [
  ['unchanged', 'As before; nothing is downloaded'],
  ['built', 'New or changed; clients download them'],
  ['removed', 'Gone or replaced; clients forget them'],
  ['evaluated', 'Tables evaluated once more, from the store'],
  ['copied', 'Tables copied from Postgres'],
  ['forgotten', 'Tables forgotten'],
];

export function showRules({ status, rules_file: file }) {
  const { deployment, building } = status.rules;
  show(byId('rules'), facts([
    ['Deployment', deployment === undefined ? 'none yet' : `${deployment}, which clients are served by`],
    ['From', file ?? 'the API: they are deployed over HTTP'],
  ]));
  if (!building) return show(byId('rebuild'));
  const total = Math.max(building.rows_estimated, building.rows_done);
  const text = `${count(building.rows_done)} of about ${counted(total, 'row')}, ${counted(building.tables_left, 'table')} left`;
  show(byId('rebuild'), bar(`Deployment ${building.deployment} is being built`, text, building.rows_done, total));
}

export async function showRulesText() {
  const place = byId('rules-text');
  try {
    const { current, next } = await api.rules();
    show(place, element('pre', { tabindex: 0, 'aria-label': 'Rules in force', role: 'region' }, current.content),
      next ? [element('h3', {}, 'Being built'), element('pre', { tabindex: 0, 'aria-label': 'Rules being built', role: 'region' }, next.content)] : null);
  } catch (error) {
    show(place, note('error', error.code ?? 'No answer', error.message));
  }
}

export async function plan(event) {
  event.preventDefault();
  const place = byId('planned');
  try {
    const preview = await api.plan(byId('wanted').value);
    const isServedAtOnce = preview.built.length + preview.evaluated.length + preview.copied.length === 0;
    const changes = CHANGES.filter(([name]) => preview[name].length > 0);
    show(place,
      element('p', { class: 'summary' }, isServedAtOnce ? 'Nothing is to be built: clients are served by these rules at once.' : 'These rules are built beside those in force, and served once they are.'),
      element('dl', { class: 'changes' }, facts(changes.map(([name, title]) => [title, preview[name].join(', ')]))));
  } catch (error) {
    show(place, note('error', `${error.message} (${error.code ?? 'no answer'})`),
      error.details ? element('pre', { tabindex: 0, role: 'region', 'aria-label': 'Findings' }, error.details) : null);
  }
}
