// Tab one: an operator of the library on tensors in JSON.

import type { Entry } from './catalogue.ts';
import { ModuleWorker } from './client.ts';
import { element, milliseconds } from './dom.ts';
import { JsonForm } from './json-form.ts';
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
  const operator = element('operator', HTMLSelectElement);
  const dataType = element('data-type', HTMLSelectElement);
  let ready: Promise<unknown> | undefined;
  let untouched = true;

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
  const form: JsonForm = new JsonForm(
    'operator',
    async () => {
      const asked = { operator: operator.value, dataType: dataType.value, json: form.input.value };
      await load();
      const { json, ms } = await worker.run('operate', asked);
      return { json, about: `${asked.operator} of ${asked.dataType}, ${milliseconds(ms)}` };
    },
    element('operator-after', HTMLElement),
  );
  const { input, output } = form;
  const example = () => {
    input.value = EXAMPLES[operator.value] ?? PAIR;
  };

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
  element('operator-copy', HTMLButtonElement).addEventListener('click', () => {
    navigator.clipboard.writeText(output.textContent).then(
      () => form.tell('Copied.'),
      (error: unknown) => form.fail('It was not copied', error),
    );
  });
  element('operator-feed', HTMLButtonElement).addEventListener('click', () => {
    untouched = false;
    input.value = `[${output.textContent}]`;
    input.focus();
  });
  example();
}
