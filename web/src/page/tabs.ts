// Tabs as the ARIA Authoring Practices describe them: arrows, Home and End move, one tab stop for
// all (roving tabindex), and the address names the tab that is open.

import { element } from './dom.ts';

/** Makes the tab list work; `opened` is told each panel's id when it is shown first. */
export function startTabs(opened: (panel: string) => void): void {
  const tabs = [...document.querySelectorAll<HTMLButtonElement>('[role="tab"]')];
  const panel = (tab: Element) => tab.getAttribute('aria-controls') ?? '';
  const seen = new Set<string>();

  const open = (tab: HTMLButtonElement) => {
    for (const other of tabs) {
      const selected = other === tab;
      other.setAttribute('aria-selected', String(selected));
      other.tabIndex = selected ? 0 : -1;
      element(panel(other), HTMLElement).hidden = !selected;
    }
    if (!seen.has(panel(tab))) {
      seen.add(panel(tab));
      opened(panel(tab));
    }
  };
  const choose = (tab: HTMLButtonElement | undefined) => {
    if (!tab) return;
    open(tab);
    tab.focus();
    history.replaceState(null, '', `#${panel(tab)}`);
  };
  const named = () => tabs.find((tab) => `#${panel(tab)}` === location.hash);

  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener('click', () => choose(tab));
    tab.addEventListener('keydown', (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      choose(tabs.at(to % tabs.length));
    });
  }
  addEventListener('hashchange', () => {
    const tab = named();
    if (tab) open(tab);
  });
  const first = named() ?? tabs[0];
  if (first) open(first);
}
