// What a picture shows: labels with their scores, and where the time went.

import type { Classification } from '../lib/classifier.ts';
import { element, h, milliseconds, percent } from './dom.ts';

const NAMES: Readonly<Record<string, string>> = { decode: 'Decode', preprocess: 'Resize and normalise', infer: 'Graph' };
const SVG = 'http://www.w3.org/2000/svg';

/** Shows a result. Without `say` nothing is spoken: a camera's answers would never end. */
export function showResult({ classes, phases, totalMs }: Classification, say: boolean): void {
  const [best] = classes;
  const status = element('picture-status', HTMLElement);
  status.setAttribute('aria-live', say ? 'polite' : 'off');
  status.replaceChildren(h('p', { className: 'headline' }, best?.label ?? ''));
  const items = classes.map(({ label, score }) => {
    const bar = h('meter', { min: 0, max: 1, value: score });
    bar.setAttribute('aria-hidden', 'true');
    const item = h('li', {}, bar, h('span', {}, label), h('b', {}, percent(score)));
    // The whole number, for who wants it.
    item.title = String(score);
    return item;
  });
  element('classes', HTMLOListElement).replaceChildren(...items);

  const named = phases.map(({ name, ms }) => ({ name: NAMES[name] ?? name, ms }));
  const rest = totalMs - phases.reduce((sum, phase) => sum + phase.ms, 0);
  const parts = [...named, { name: 'Message and answer', ms: Math.max(rest, 0) }];
  const rows = parts.map(({ name, ms }, index) =>
    row([h('i', { className: `p${Math.min(index, 3)}` }), name], ms),
  );
  element('phases', HTMLElement).replaceChildren(
    h('h3', {}, 'Time of each phase'),
    timeline(parts.map((part) => part.ms)),
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

/** The phases side by side, as wide as they are long; the table below says the same. */
function timeline(parts: readonly number[]): SVGElement {
  const all = parts.reduce((sum, ms) => sum + ms, 0) || 1;
  const svg = document.createElementNS(SVG, 'svg');
  for (const [name, value] of [['viewBox', '0 0 100 1'], ['preserveAspectRatio', 'none'], ['class', 'timeline'], ['aria-hidden', 'true']] as const) {
    svg.setAttribute(name, value);
  }
  let at = 0;
  for (const [index, ms] of parts.entries()) {
    const rect = document.createElementNS(SVG, 'rect');
    const width = (100 * ms) / all;
    for (const [name, value] of [['x', at], ['width', width], ['height', 1]] as const) rect.setAttribute(name, String(value));
    rect.setAttribute('class', `p${Math.min(index, 3)}`);
    svg.append(rect);
    at += width;
  }
  return svg;
}
