// The page: wires the tabs to what the build has put beside it.

import { simdLevel } from '../lib/simd.ts';
import { fetchCatalogue, fetchTrust } from './catalogue.ts';
import { alertIn, element } from './dom.ts';
import { startGraphs } from './graphs-tab.ts';
import { startOperators } from './operators-tab.ts';
import { startPictures } from './pictures-tab.ts';
import { startTabs } from './tabs.ts';
import { TrustPanel } from './trust-panel.ts';

async function start(): Promise<void> {
  const [catalogue, trustText] = await Promise.all([fetchCatalogue(), fetchTrust()]);
  const trust = new TrustPanel(trustText);
  startOperators(catalogue.operators[0], trust);
  const pictures = startPictures(catalogue.actors, trust);
  const graphs = startGraphs(catalogue.graphs, trust);
  // Megabytes are fetched when somebody looks.
  const begin: Readonly<Record<string, () => void>> = { pictures, graphs };
  startTabs((panel) => begin[panel]?.());
  document.body.dataset['ready'] = '';
}

/** Says so when another version of the page has arrived: what is open is still the one before. */
function tellOfUpdates(): void {
  if (!('serviceWorker' in navigator) || !navigator.serviceWorker.controller) return;
  navigator.serviceWorker.addEventListener('controllerchange', () => {
    engine.textContent = 'A newer version of this page is here: load it again.';
  });
}

/** Keeps the page for when there is no network. */
async function keepForLater(): Promise<string> {
  if (!('serviceWorker' in navigator)) return 'cannot be kept for offline use here';
  try {
    await navigator.serviceWorker.register('service-worker.js');
    await navigator.serviceWorker.ready;
    return 'works offline from now on';
  } catch {
    return 'is not kept for offline use';
  }
}

const engine = element('engine', HTMLElement);
const simd = { relaxed: 'has relaxed SIMD', simd128: 'has 128-bit SIMD', none: 'has no SIMD' }[simdLevel()];
engine.textContent = `This browser ${simd}.`;
start().catch((error: unknown) => alertIn(element('operator-alert', HTMLElement), 'The page does not start', error));
tellOfUpdates();
void keepForLater().then((kept) => {
  engine.textContent = `This browser ${simd}; the page ${kept}.`;
});
