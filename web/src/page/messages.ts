// What the page and its worker say to each other.

import type { Classification, Description, ModelCard } from '../lib/index.ts';

/** Where a module comes from. */
export type Source = { readonly url: string; readonly bytes: number } | { readonly file: File };

/** Whom the page trusts: the text of `trust.json`, and what people here have added. */
export interface TrustGiven {
  readonly text: string;
  readonly added: readonly (readonly [key: string, name: string])[];
}

/** What the page asks for, by name, with what it hands over and what it gets. */
export interface Tasks {
  classifier: { given: Load; answer: Loaded & { readonly card: ModelCard | undefined } };
  operators: { given: Load; answer: Loaded };
  graph: { given: Load; answer: Loaded & { readonly description: Description } };
  classify: { given: { readonly picture: ArrayBuffer; readonly top: number }; answer: Classification };
  operate: { given: { readonly operator: string; readonly dataType: string; readonly json: string }; answer: Computed };
  compute: { given: { readonly json: string }; answer: Computed };
}
export type Task = keyof Tasks;

/** Load a module. */
export interface Load {
  readonly source: Source;
  readonly trust: TrustGiven;
}

/** A module is loaded. */
export interface Loaded {
  readonly bytes: number;
  readonly digest: string;
  readonly issuer: string;
  readonly issuerName: string;
  readonly subject: string;
  readonly name: string;
  readonly version: string;
  readonly issuedAt: number;
  readonly expires: number | undefined;
  /** Milliseconds of each stage. */
  readonly times: Readonly<Record<Stage, number>>;
}

/** The stages of loading. */
export type Stage = 'download' | 'verify' | 'compile';

/** What a run on tensors gave: JSON of wasm-frontend's form. */
export interface Computed {
  readonly json: string;
  readonly ms: number;
}

/** How far loading is; `total` is 0 when nobody knows. */
export interface Progress {
  readonly stage: Stage;
  readonly done: number;
  readonly total: number;
}

/** To the worker. */
export type Request = {
  [T in Task]: { readonly id: number; readonly task: T; readonly given: Tasks[T]['given'] };
}[Task];

/** From the worker. */
export type Answer =
  | { readonly id: number; readonly progress: Progress }
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: Failure };

/** What went wrong. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  /** Who signed a module that is refused only for want of trust in them. */
  readonly issuer?: string;
}
