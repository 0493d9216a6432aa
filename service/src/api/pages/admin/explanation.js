// An answer to "why has this user this?", for people: its sentence first, then what stands behind it.

import { element, table } from './dom.js';
import { count, counted } from './format.js';

const VERDICTS = { holds: ['yes', 'yes'], does_not_hold: ['no', 'no'], failed: ['failed', 'fails'] };

const SOURCES = {
  device: 'as a connected device asked',
  given: 'as given',
  user_alone: 'with a token that says nothing but the user, as no device is connected',
};

const ON_DEVICE = { sent: 'the row was sent', coming: 'the row is being sent', not_asked: 'its stream has no bucket with the row' };

const way = ({ subscription }) => (subscription === null || subscription === undefined ? 'by default' : `by subscription ${subscription + 1}`);
const shown = (values) => values.map(({ name, value }) => `${name} is ${value}`).join(', ');
const rest = (number) => (number > 0 ? element('p', { class: 'hint' }, `and ${count(number)} more`) : null);

export function explanation(answer) {
  return [
    element('p', { class: 'summary' }, answer.summary),
    element('p', { class: 'hint' }, `${answer.user_id}, ${SOURCES[answer.request.source]}${answer.request.client_id ? ` (${answer.request.client_id})` : ''}`),
    answer.row ? row(answer.row) : null,
    buckets(answer.buckets),
    definitions(answer.definitions),
    devices(answer),
  ].flat().filter(Boolean);
}

// A failed outcome has its reason: {"failed": "…"}.
const outcomeOf = (outcome) => (typeof outcome === 'string' ? { kind: outcome } : { kind: 'failed', reason: Object.values(outcome)[0] });

function predicate({ text, values, outcome, note, alternatives = [] }) {
  const { kind, reason } = outcomeOf(outcome);
  const [style, word] = VERDICTS[kind] ?? VERDICTS.failed;
  const details = [values.length > 0 ? shown(values) : null, note, reason].filter(Boolean).join('; ');
  return element('li', {},
    element('span', { class: `verdict ${style}` }, word), ' ', element('code', {}, text),
    details ? element('span', { class: 'hint' }, ` ${details}`) : null,
    alternatives.map((each) => element('ul', { class: 'predicates' }, element('li', {}, 'either'), each.map(predicate))));
}

const predicates = (list) => (list.length === 0 ? null : element('ul', { class: 'predicates' }, list.map(predicate)));

function row({ table: name, key, queries, buckets: list, bucket_count: all, user_bucket_count: usersOwn }) {
  if (queries.length === 0) return [];
  return [
    element('h3', {}, `Row ${key} of ${name}`),
    ...queries.map(rowQuery),
    element('p', {}, `It is in ${counted(all, 'bucket')}, of which the user has ${count(usersOwn)}.`),
    list.length === 0 ? null : element('ul', {}, list.map(({ name: bucket, is_users: isUsers, object_type: type, object_id: id, op_id: op }) =>
      element('li', {}, element('code', {}, bucket), ` as ${type} ${id}: ${isUsers ? `the user has it${op ? `; last operation ${op}` : ''}` : 'not the user’s'}`))),
    rest(all - list.length),
  ];
}

function rowQuery(query) {
  const isMet = query.failure === null && query.passes.some((pass) => pass.predicates.every(({ outcome }) => outcome === 'holds'));
  return element('div', {},
    element('p', {}, `Query ${query.number} of `, element('strong', {}, query.definition), isMet ? ' takes it' : ' leaves it out'),
    query.failure ? element('p', { class: 'verdict failed' }, `An expression has no value: ${query.failure}`) : null,
    query.passes.flatMap(({ elements = [], predicates: list }) => [
      elements.length > 0 ? element('p', { class: 'hint' }, `for element ${elements.join(', ')}`) : null,
      predicates(list),
    ]),
    rest(query.pass_count - query.passes.length));
}

function buckets({ count: all, limit, failures, page, next_after: more }) {
  const columns = [{ title: 'Bucket' }, { title: 'Priority', kind: 'number' }, { title: 'Operations', kind: 'number' }, { title: 'Why', kind: 'long' }];
  const rows = page.map((bucket) => [
    element('code', {}, bucket.name), String(bucket.priority), count(bucket.operation_count),
    element('ul', { class: 'tree' }, bucket.origins.map(origin)),
  ]);
  return [
    element('h3', {}, `${counted(all, 'bucket')} of at most ${count(limit)}`),
    ...failures.map((failure) => element('p', { class: 'verdict failed' }, failure)),
    page.length > 0 ? table('By name', columns, rows) : null,
    more ? element('p', { class: 'hint' }, `and ${count(all - page.length)} more`) : null,
  ];
}

function origin({ definition, parameters, lookups, ...by }) {
  const values = parameters.map(({ value, from }) => `${value} is ${from}`).join(', ');
  const found = lookups.map(({ step, table: name, value, rows, row_count: all }) =>
    element('li', {}, `step ${step}: ${name} says ${value}, in ${rows.join('; ')}${all > rows.length ? ` and ${count(all - rows.length)} more` : ''}`));
  return element('li', {}, element('strong', {}, definition), `, ${way(by)}${values ? `: ${values}` : ''}`,
    found.length > 0 ? element('ul', { class: 'tree' }, found) : null);
}

function definitions(list) {
  const each = (definition) => element('li', {},
    element('strong', {}, definition.name), definition.is_stream ? ' (stream)' : '',
    definition.ways.length === 0 ? ': not asked for' : null,
    definition.ways.map((one) => element('ul', { class: 'tree' }, one.queries.map((query) => bucketQuery(query, way(one))))));
  return element('details', {},
    element('summary', {}, 'How each definition finds buckets'),
    element('ul', { class: 'tree' }, list.map(each)));
}

function bucketQuery(query, by) {
  const step = ({ text, asked = [], found_count: found, values }, index) =>
    element('li', {}, `step ${index + 1}: `, element('code', {}, text), `${asked.length > 0 ? `, asked with ${asked.join('; ')}` : ''}: finds ${count(found)}`,
      values.length > 0 ? element('span', { class: 'hint' }, ` ${shown(values)}`) : null);
  const parameter = ({ from, value }, index) => element('li', {}, `p${index + 1}${value === null || value === undefined ? '' : ` = ${value}`} is ${from}`);
  return element('li', {}, element('code', {}, `${query.bucket}[…]`), `, ${by}: ${counted(query.bucket_count, 'bucket')}`,
    query.failure ? element('p', { class: 'verdict failed' }, query.failure) : null,
    predicates(query.conditions),
    element('ul', { class: 'tree' }, query.steps.map(step), query.parameters.map(parameter)));
}

function devices({ devices: list, device_count: all }) {
  const moment = (told) => (told ? `operation ${told.op_id} at ${told.at}` : 'none');
  return [
    element('h3', {}, `${counted(all, 'device')} connected`),
    list.length === 0 ? null : element('ul', {}, list.map((device) => element('li', {},
      `${device.client_id ?? 'without a client id'}, ${device.carrier}, since ${device.since}; complete checkpoint: ${moment(device.completed)}`,
      device.row ? `; ${ON_DEVICE[device.row]}` : ''))),
    rest(all - list.length),
  ];
}
