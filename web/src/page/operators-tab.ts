// Tab one: an operator of the library on tensors in JSON.

import type { Entry } from './catalogue.ts';
import { ModuleWorker } from './client.ts';
import { alertIn, element, h, milliseconds } from './dom.ts';
import { pickVariant } from '../lib/simd.ts';
import type { TrustPanel } from './trust-panel.ts';

const PAIR = `[{"input-data": [1, 2, 3, 4], "dim-size": 2, "shape": [2, 2]},
 {"input-data": [3, 4, 5, 6], "dim-size": 2, "shape": [2, 2]}]`;
const EXAMPLES: Readonly<Record<string, string>> = {
  Add: PAIR,
  Mul: `[{"input-data": [1, 2, 3, 4, 5, 6], "dim-size": 2, "shape": [2, 3]},
 {"input-data": [10, 20, 30], "dim-size": 1, "shape": [3]}]`,
  Argmax: '[{"input-data": [1, 9, 3, 4, 5, 6], "dim-size": 2, "shape": [2, 3], "axis": 1}]',
  EqualCount: `[{"input-data": [1, 2, 3, 4], "dim-size": 1, "shape": [4]},
 {"input-data": [1, 0, 3, 0], "dim-size": 1, "shape": [4]}]`,
};

/** Makes the tab work; its library is loaded when it is needed first. */
export function startOperators(entry: Entry | undefined, trust: TrustPanel): void {
  const worker = new ModuleWorker();
  const form = element('operator-form', HTMLFormElement);
  const operator = element('operator', HTMLSelectElement);
  const dataType = element('data-type', HTMLSelectElement);
  const input = element('operator-input', HTMLTextAreaElement);
  const output = element('operator-output', HTMLPreElement);
  const after = element('operator-after', HTMLElement);
  const [alert, status] = [element('operator-alert', HTMLElement), element('operator-status', HTMLElement)];
  const run = element('operator-run', HTMLButtonElement);
  let ready: Promise<unknown> | undefined;

  const example = () => {
    input.value = EXAMPLES[operator.value] ?? PAIR;
  };
  const load = () => {
    const variant = entry && pickVariant(entry.variants);
    if (!variant) throw new Error('no operator library comes with this page: build it with `make web`');
    ready ??= worker.load('operators', { source: { url: variant.url, bytes: variant.bytes }, trust: trust.given });
    // What failed once may go well next time: the network is back, the issuer is trusted.
    ready.catch(() => {
      ready = undefined;
    });
    return ready;
  };
  const compute = async () => {
    alertIn(alert);
    run.disabled = true;
    status.replaceChildren(h('p', { className: 'hint' }, 'Computing …'));
    const asked = { operator: operator.value, dataType: dataType.value, json: input.value };
    try {
      await load();
      const { json, ms } = await worker.run('operate', asked);
      output.textContent = json;
      output.hidden = after.hidden = false;
      const words = `${asked.operator} of ${asked.dataType}, ${milliseconds(ms)}`;
      status.replaceChildren(h('p', { className: 'hint' }, words));
      input.removeAttribute('aria-invalid');
    } catch (error) {
      output.hidden = after.hidden = true;
      status.replaceChildren();
      input.setAttribute('aria-invalid', 'true');
      alertIn(alert, 'There is no result', error);
    } finally {
      run.disabled = false;
    }
  };

  let untouched = true;
  input.addEventListener('input', () => {
    untouched = false;
  });
  operator.addEventListener('change', () => {
    if (untouched) example();
  });
  element('operator-example', HTMLButtonElement).addEventListener('click', () => {
    untouched = true;
    example();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void compute();
  });
  runByKey(input, form);
  element('operator-copy', HTMLButtonElement).addEventListener('click', () => {
    void navigator.clipboard.writeText(output.textContent).then(
      () => status.replaceChildren(h('p', { className: 'hint' }, 'Copied.')),
      (error: unknown) => alertIn(alert, 'It was not copied', error),
    );
  });
  element('operator-feed', HTMLButtonElement).addEventListener('click', () => {
    untouched = false;
    input.value = `[${output.textContent}]`;
    input.focus();
  });
  example();
}

/** Ctrl (or Cmd) + Enter in a text area sends its form. */
export function runByKey(input: HTMLTextAreaElement, form: HTMLFormElement): void {
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
