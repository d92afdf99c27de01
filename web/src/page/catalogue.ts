// What comes with the page: the modules that the build found, and whom it trusts.

import type { SimdLevel } from '../lib/simd.ts';

/** One file of a module. */
export interface Variant {
  readonly simd: SimdLevel;
  readonly url: string;
  readonly bytes: number;
}

/** A module with its builds for more and less able engines. */
export interface Entry {
  readonly id: string;
  readonly title: string;
  readonly variants: readonly Variant[];
  /** Pictures to try it with. */
  readonly samples: readonly string[];
}

/** `catalogue.json`, which tools/build.mjs writes. */
export interface Catalogue {
  readonly actors: readonly Entry[];
  readonly graphs: readonly Entry[];
  readonly operators: readonly Entry[];
}

const EMPTY: Catalogue = { actors: [], graphs: [], operators: [] };

/** What comes with the page; nothing when the page was built without modules. */
export async function fetchCatalogue(): Promise<Catalogue> {
  const text = await fetchText('catalogue.json');
  return text === undefined ? EMPTY : (JSON.parse(text) as Catalogue);
}

/** The trust file; one that is not there trusts nobody. */
export async function fetchTrust(): Promise<string> {
  return (await fetchText('trust.json')) ?? '{}';
}

async function fetchText(url: string): Promise<string | undefined> {
  const response = await fetch(url).catch(() => undefined);
  return response?.ok ? response.text() : undefined;
}
