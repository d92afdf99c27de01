// The card of a module: choose one, see it being fetched, checked and compiled, see who signed it,
// or why it is refused.

import { pickVariant, type SimdLevel, simdLevel } from '../lib/simd.ts';
import { day } from '../lib/verify.ts';
import type { Entry } from './catalogue.ts';
import { TaskError } from './client.ts';
import { alertIn, h, milliseconds, size } from './dom.ts';
import type { Load, Loaded, Progress, Source, Stage } from './messages.ts';
import type { TrustPanel } from './trust-panel.ts';

const STAGES: Readonly<Record<Stage, string>> = {
  download: 'Fetching',
  verify: 'Checking the signature',
  compile: 'Compiling and starting',
};
const SIMD = { relaxed: 'relaxed SIMD', simd128: '128-bit SIMD', none: 'no SIMD' } as const;

// The value of the option that stands for a file.
const FILE = 'file';

/** Settings of a card. */
export interface CardOptions<T extends Loaded> {
  /** Where it stands. */
  readonly place: HTMLElement;
  /** What the module is called: `model`, `graph`, `library`. */
  readonly what: string;
  /** What there is to choose from. */
  readonly entries: readonly Entry[];
  readonly trust: TrustPanel;
  load(given: Load, progress: (progress: Progress) => void): Promise<T>;
  /** A module is loaded, with the entry it came from. */
  loaded(loaded: T, entry: Entry | undefined): void;
  /** None is, any more or yet. */
  unloaded?(): void;
  /** What is worth saying about a module besides. */
  facts?(loaded: T): readonly (readonly [string, string])[];
}

/** Choosing and loading modules of one kind. */
export class ModuleCard<T extends Loaded> {
  private readonly alert = h('div');
  private readonly status = h('div');
  private readonly facts = h('div');
  private readonly select = h('select');
  private readonly fileOption = h('option', { value: FILE });
  private file: File | undefined;
  private attempt = 0;

  constructor(private readonly options: CardOptions<T>) {
    const { place, what, entries } = options;
    const id = `${place.id}-choice`;
    this.select.id = id;
    this.select.append(...entries.map((entry, index) => h('option', { value: String(index) }, entry.title)));
    if (entries.length === 0) this.select.append(h('option', { value: '' }, `no ${what} comes with this page`));
    this.select.disabled = entries.length === 0;
    this.select.addEventListener('change', () => this.loadChosen());
    const file = h('input', { type: 'file', className: 'visually-hidden', accept: '.wasm,application/wasm' });
    file.addEventListener('change', () => {
      const [chosen] = file.files ?? [];
      if (chosen) this.loadFile(chosen);
      file.value = '';
    });
    this.alert.setAttribute('role', 'alert');
    this.status.setAttribute('role', 'status');
    place.append(
      h(
        'div',
        { className: 'row' },
        h(
          'div',
          { className: 'field' },
          h('label', { htmlFor: id }, what.charAt(0).toUpperCase() + what.slice(1)),
          this.select,
        ),
        h('label', { className: 'button' }, file, h('span', {}, 'Choose a module file')),
      ),
      this.alert,
      this.status,
      this.facts,
    );
    if (entries.length === 0) {
      this.status.replaceChildren(
        h(
          'p',
          { className: 'hint' },
          'Build one with ',
          h('code', {}, 'make web'),
          ', or choose a signed module file of your own.',
        ),
      );
    }
  }

  /** Loads a file, and lists it, so that the others can be chosen again. */
  private loadFile(file: File): void {
    this.file = file;
    this.fileOption.textContent = `${file.name} (a file of yours)`;
    this.select.append(this.fileOption);
    this.select.value = FILE;
    this.select.disabled = false;
    void this.load({ file }, undefined, file.name);
  }

  /** Loads what is chosen in the list. */
  loadChosen(): void {
    if (this.select.value === FILE && this.file) {
      this.loadFile(this.file);
      return;
    }
    const entry = this.options.entries[Number(this.select.value)];
    if (!entry || this.select.value === '') return;
    const variant = pickVariant(entry.variants);
    if (variant) void this.load({ url: variant.url, bytes: variant.bytes }, entry, entry.title, variant.simd);
    else this.refuse(new Error(`this browser has no SIMD, and there is no build of ${entry.title} without`));
  }

  private async load(source: Source, entry: Entry | undefined, title: string, built?: SimdLevel): Promise<void> {
    const { options } = this;
    this.attempt += 1;
    const { attempt } = this;
    options.unloaded?.();
    alertIn(this.alert);
    this.facts.replaceChildren();
    this.showProgress(title);
    try {
      const loaded = await options.load({ source, trust: options.trust.given }, (progress) => {
        if (attempt === this.attempt) this.advance(progress);
      });
      if (attempt !== this.attempt) return;
      this.status.replaceChildren(
        h('p', { className: 'verified' }, `Signature checked: ${loaded.issuerName || 'trusted issuer'}`),
      );
      this.showFacts(loaded, built);
      options.loaded(loaded, entry);
    } catch (error) {
      if (attempt === this.attempt) this.refuse(error, () => void this.load(source, entry, title, built));
    }
  }

  private showProgress(title: string): void {
    const bar = h('progress');
    bar.setAttribute('aria-label', `Loading ${title}`);
    this.status.replaceChildren(
      h('p', { className: 'hint' }, `Loading ${title}`),
      bar,
      h('p', { className: 'hint stage' }),
    );
  }

  private advance({ stage, done, total }: Progress): void {
    const bar = this.status.querySelector('progress');
    const text = this.status.querySelector('.stage');
    if (!bar || !text) return;
    if (total > 0) {
      bar.max = total;
      bar.value = done;
    } else bar.removeAttribute('value');
    const words = total > 0 ? `${STAGES[stage]}: ${size(done)} of ${size(total)}` : STAGES[stage];
    // Each stage is told once; numbers that run are for eyes only.
    if (text.getAttribute('data-stage') !== stage) {
      text.setAttribute('data-stage', stage);
      text.textContent = STAGES[stage];
    }
    bar.title = words;
  }

  private refuse(error: unknown, again?: () => void): void {
    this.status.replaceChildren();
    const issuer = error instanceof TaskError ? error.issuer : undefined;
    const more: Node[] = [];
    if (issuer !== undefined && again) {
      const trust = h('button', { type: 'button' }, 'Trust this issuer in this browser, and load');
      trust.addEventListener('click', () => {
        this.options.trust.add(issuer, 'trusted by you');
        again();
      });
      more.push(
        h(
          'p',
          {},
          'The signature itself holds. Trust an issuer only if you know, from elsewhere, that the key is theirs.',
        ),
        trust,
      );
    }
    alertIn(this.alert, `The ${this.options.what} is refused`, error, ...more);
  }

  private showFacts(loaded: T, built: SimdLevel | undefined): void {
    const { times } = loaded;
    const list = (rows: readonly (readonly [string, string])[]) =>
      h('dl', {}, ...rows.flatMap(([term, fact]) => [h('dt', {}, term), h('dd', {}, fact)]));
    this.facts.replaceChildren(
      list([
        ...(this.options.facts?.(loaded) ?? []),
        ['Signed by', [loaded.issuerName, loaded.issuer].filter(Boolean).join(', ')],
        [
          'Loaded in',
          `fetch ${milliseconds(times.download)}, check ${milliseconds(times.verify)}, compile and start ${milliseconds(times.compile)}`,
        ],
      ]),
      h(
        'details',
        {},
        h('summary', {}, 'More about this module'),
        list([
          ['Module', `${[loaded.name, loaded.version].filter(Boolean).join(' ')}, ${size(loaded.bytes)}`],
          ['Vectors', `${built ? `built for ${SIMD[built]}; ` : ''}this browser has ${SIMD[simdLevel()]}`],
          [
            'Signed',
            `${day(loaded.issuedAt)}, ${loaded.expires === undefined ? 'for ever' : `until ${day(loaded.expires)}`}`,
          ],
          ['Subject', loaded.subject],
          ['Digest', loaded.digest],
        ]),
      ),
    );
  }
}
