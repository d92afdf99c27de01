// What a picture shows: labels with their scores, and where the time went.

import type { Classification } from '../lib/classifier.ts';
import { element, h, milliseconds, percent } from './dom.ts';

const NAMES: Readonly<Record<string, string>> = {
  decode: 'Decode',
  preprocess: 'Resize and normalise',
  infer: 'Graph',
};

/** Shows a result. Without `say` nothing is spoken: a camera's answers would never end. */
export function showResult({ classes, phases, totalMs }: Classification, say: boolean): void {
  const [best] = classes;
  const status = element('picture-status', HTMLElement);
  status.setAttribute('aria-live', say ? 'polite' : 'off');
  status.replaceChildren(h('p', { className: 'headline' }, best?.label ?? ''));
  const items = classes.map(({ label, score }) => {
    const item = h('li', {}, bars('score', [score, 1 - score]), h('span', {}, label), h('b', {}, percent(score)));
    // The whole number, for who wants it.
    item.title = String(score);
    return item;
  });
  element('classes', HTMLOListElement).replaceChildren(...items);

  const named = phases.map(({ name, ms }) => ({ name: NAMES[name] ?? name, ms }));
  const rest = totalMs - phases.reduce((sum, phase) => sum + phase.ms, 0);
  const parts = [...named, { name: 'Message and answer', ms: Math.max(rest, 0) }];
  const rows = parts.map(({ name, ms }, index) => row([h('i', { className: `p${Math.min(index, 3)}` }), name], ms));
  element('phases', HTMLElement).replaceChildren(
    h('h3', {}, 'Time of each phase'),
    bars(
      'timeline',
      parts.map((part) => part.ms),
    ),
    h('table', { className: 'times' }, h('tbody', {}, ...rows, row(['All'], totalMs))),
  );
}

/** Shows nothing, or that something is going on. */
export function clearResult(words?: string): void {
  const status = element('picture-status', HTMLElement);
  status.setAttribute('aria-live', 'polite');
  status.replaceChildren(...(words === undefined ? [] : [h('p', { className: 'hint' }, words)]));
  element('classes', HTMLElement).replaceChildren();
  element('phases', HTMLElement).replaceChildren();
}

function row(name: (Node | string)[], ms: number): HTMLTableRowElement {
  const head = h('th', { scope: 'row' }, ...name);
  return h('tr', {}, head, h('td', { className: 'number' }, milliseconds(ms)));
}

/** Parts side by side, each as wide as it is large; texts beside it say the same. */
function bars(name: string, parts: readonly number[]): SVGElement {
  const all = parts.reduce((sum, part) => sum + part, 0) || 1;
  const svg = made('svg', { viewBox: '0 0 100 1', preserveAspectRatio: 'none', class: name, 'aria-hidden': 'true' });
  let at = 0;
  for (const [index, part] of parts.entries()) {
    const width = (100 * part) / all;
    svg.append(made('rect', { x: at, width, height: 1, class: `p${Math.min(index, 3)}` }));
    at += width;
  }
  return svg;
}

function made(tag: string, attributes: Readonly<Record<string, string | number>>): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
