// Making and replacing parts of the page. Texts become text, never markup.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null>;

/** What stands in the page from the beginning. */
export function byId<Found extends HTMLElement = HTMLElement>(id: string): Found {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as Found;
}

export function element(tag: string, attributes: Attributes = {}, ...children: Child[]): HTMLElement {
  const made = document.createElement(tag);
  setAttributes(made, attributes);
  made.append(...present(children));
  return made;
}

export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  setAttributes(made, attributes);
  made.append(...present(children));
  return made;
}

function setAttributes(made: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? '' : String(value));
  }
}

const present = (children: Child[]): (Node | string)[] =>
  children.filter((child) => child !== null && child !== undefined && child !== false);

/** Replaces what is shown only where it differs, so that neither a finger nor a reader is disturbed. */
export function show(place: HTMLElement, ...children: Child[]): void {
  const next = document.createElement(place.localName);
  next.append(...present(children));
  const isSame =
    next.childNodes.length === place.childNodes.length &&
    [...next.childNodes].every((node, index) => node.isEqualNode(place.childNodes[index] ?? null));
  if (!isSame) place.replaceChildren(...next.childNodes);
}

export function say(place: HTMLElement, text: string): void {
  if (place.textContent !== text) place.textContent = text;
}
