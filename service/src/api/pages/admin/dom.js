// Making and replacing parts of the page. Texts become text, never markup.

export const byId = (id) => document.getElementById(id);

// `children` are nodes and texts; what is null or false is left out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Replaces what is shown only where it differs, so that a selection, or a reader, is not disturbed twice a second.
export function show(place, ...children) {
  const next = element(place.localName, {}, ...children);
  const isSame = next.childNodes.length === place.childNodes.length
    && [...next.childNodes].every((node, index) => node.isEqualNode(place.childNodes[index]));
  if (!isSame) place.replaceChildren(...next.childNodes);
}

// Pairs of names and values, for a list of descriptions. Pairs without a value are left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined);
  return known.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value)));
}

// Columns are {title, kind}, with kind "number", "long" or none. On narrow screens rows are shown as cards, for which the
// roles are said: there a browser would not see a table any more.
export function table(caption, columns, rows) {
  const head = columns.map(({ title, kind }) => element('th', { role: 'columnheader', scope: 'col', class: kind ?? null }, title));
  const cell = (content, index) => {
    const { title, kind } = columns[index];
    if (index === 0) return element('th', { role: 'rowheader', scope: 'row' }, content);
    return element('td', { role: 'cell', class: kind ?? null, 'data-label': title }, content ?? '–');
  };
  return element(
    'table',
    { role: 'table' },
    element('caption', {}, caption),
    element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' }, head)),
    element('tbody', { role: 'rowgroup' }, rows.map((cells) => element('tr', { role: 'row' }, cells.map(cell)))),
  );
}

// A bar with its name at the left and what it says at the right.
export function bar(name, text, done, total) {
  const percent = total > 0 ? Math.min(100, Math.round((100 * done) / total)) : 0;
  return element(
    'div',
    { class: 'bar' },
    element('div', {}, element('span', {}, name), element('span', { class: 'hint' }, text)),
    element('progress', { value: percent, max: 100, 'aria-label': `${name}: ${percent} %` }),
  );
}

export function note(level, title, text) {
  return element('div', { class: `note ${level}` }, element('strong', {}, title), text ? element('p', {}, text) : null);
}
