// The question that the form asks, and its answer.

import { api } from './api.js';
import { byId, note, show } from './dom.js';
import { explanation } from './explanation.js';

// Keys of several columns are written as a JSON object.
function keyOf(text) {
  if (!text.startsWith('{')) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

export async function lookUp(event) {
  event.preventDefault();
  const form = event.target;
  const [user, table, key] = ['user', 'table', 'key'].map((name) => form.elements[name].value.trim());
  const place = byId('explanation');
  if (!user) return;
  if (!table !== !key) return show(place, note('warning', 'A row has a table and an id', 'Give both, or none of them to see what the user has.'));
  const question = { user_id: user, bucket_limit: 100, ...(table ? { table, id: keyOf(key) } : {}) };
  const button = form.querySelector('button');
  button.disabled = true;
  try {
    show(place, ...explanation(await api.explain(question)));
  } catch (error) {
    show(place, note('error', error.code ?? 'No answer', [error.message, error.details].filter(Boolean).join(': ')));
  } finally {
    button.disabled = false;
  }
}
