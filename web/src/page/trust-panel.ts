// Trusted issuers: those of `trust.json`, and those that people add here, which this browser keeps.

import { sentence } from '../lib/errors.ts';
import { parseKey } from '../lib/keys.ts';
import { readTrust } from '../lib/trust.ts';
import { alertIn, element, h } from './dom.ts';
import type { TrustGiven } from './messages.ts';

const KEPT = 'graphlet.issuers';

/** Whom this page trusts; told to each worker with each module. */
export class TrustPanel {
  private readonly added = new Map<string, string>(kept());

  constructor(private readonly text: string) {
    const [form, key, name] = [
      element('issuer-form', HTMLFormElement),
      element('issuer-key', HTMLInputElement),
      element('issuer-name', HTMLInputElement),
    ];
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const place = element('issuer-alert', HTMLElement);
      try {
        parseKey(key.value.trim(), 'issuer');
      } catch (error) {
        key.setAttribute('aria-invalid', 'true');
        alertIn(place, 'Not an issuer', sentence(error));
        key.focus();
        return;
      }
      key.removeAttribute('aria-invalid');
      alertIn(place);
      this.add(key.value.trim(), name.value.trim());
      form.reset();
    });
    this.show();
  }

  /** What a worker is told. */
  get given(): TrustGiven {
    return { text: this.text, added: [...this.added] };
  }

  /** Trusts an issuer from now on, in this browser. */
  add(key: string, name: string): void {
    this.added.set(key, name);
    this.keep();
  }

  private keep(): void {
    try {
      localStorage.setItem(KEPT, JSON.stringify([...this.added]));
    } catch {
      // A browser that keeps nothing trusts until the page is closed.
    }
    this.show();
  }

  private show(): void {
    let own: ReadonlyMap<string, string> = new Map();
    const place = element('issuer-alert', HTMLElement);
    try {
      own = readTrust(this.text).issuers;
    } catch (error) {
      alertIn(place, 'trust.json is not used', error);
    }
    const item = (key: string, name: string, what: Node | string) =>
      h('li', {}, h('span', {}, name || 'issuer without a name'), what, h('code', {}, key));
    const items = [...own].map(([key, name]) => item(key, name, 'comes with the page'));
    for (const [key, name] of this.added) {
      if (own.has(key)) continue;
      const remove = h('button', { type: 'button' }, 'Trust no more');
      remove.setAttribute('aria-label', `Trust ${name || key} no more`);
      remove.addEventListener('click', () => {
        this.added.delete(key);
        this.keep();
        element('issuer-key', HTMLElement).focus();
      });
      items.push(item(key, name, remove));
    }
    element('issuers', HTMLUListElement).replaceChildren(...items);
    element('trust-count', HTMLElement).textContent = `(${items.length})`;
  }
}

function kept(): [string, string][] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEPT) ?? '[]');
    const pair = (entry: unknown): entry is [string, string] =>
      Array.isArray(entry) && entry.length === 2 && entry.every((text) => typeof text === 'string');
    return Array.isArray(found) ? found.filter(pair) : [];
  } catch {
    return [];
  }
}
