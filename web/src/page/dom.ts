// Small helpers for elements. Text is always set as text: nothing that a module or a file says is
// ever read as markup.

import { sentence } from '../lib/errors.ts';

type Child = Node | string;

/** The element with an id, which is in index.html and of this kind. */
export function element<T extends Element>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`there is no ${kind.name} #${id}`);
  return found;
}

/** A new HTML element with properties and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A sentence as it stands on the page: with a capital and a full stop. */
export function shown(text: string): string {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?)…]$/.test(capital) ? capital : `${capital}.`;
}

/** Shows what went wrong in an element with the role `alert`, or clears it. */
export function alertIn(place: HTMLElement, title?: string, error?: unknown, ...more: Child[]): void {
  if (title === undefined) place.replaceChildren();
  else place.replaceChildren(h('div', { className: 'alert' }, h('strong', {}, title), shown(sentence(error)), ...more));
}

/** A duration as people read it. */
export function milliseconds(ms: number): string {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 1 ? ms.toFixed(3) : ms.toFixed(ms < 100 ? 2 : 0)} ms`;
}

/** A size as people read it. */
export function size(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A probability as people read it. */
export function percent(score: number): string {
  return `${(100 * score).toFixed(2)} %`;
}
