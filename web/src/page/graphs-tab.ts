// Tab three: a WASM graph on tensors in JSON.

import type { TensorInfo } from '../lib/graph.ts';
import { elementCount, showShape } from '../lib/tensor.ts';
import type { Entry } from './catalogue.ts';
import { ModuleWorker } from './client.ts';
import { alertIn, element, h, milliseconds } from './dom.ts';
import type { Loaded, Tasks } from './messages.ts';
import { ModuleCard } from './module-card.ts';
import { runByKey } from './operators-tab.ts';
import type { TrustPanel } from './trust-panel.ts';

// More numbers than this are no example but a burden.
const MAX_EXAMPLE = 50_000;

/** Makes the tab work; gives what loads its first graph. */
export function startGraphs(entries: readonly Entry[], trust: TrustPanel): () => void {
  const worker = new ModuleWorker();
  const form = element('graph-form', HTMLFormElement);
  const input = element('graph-input', HTMLTextAreaElement);
  const output = element('graph-output', HTMLPreElement);
  const run = element('graph-run', HTMLButtonElement);
  const hint = element('graph-hint', HTMLElement);
  const [alert, status] = [element('graph-alert', HTMLElement), element('graph-status', HTMLElement)];

  const card = new ModuleCard<Loaded & Tasks['graph']['answer']>({
    place: element('graph-module', HTMLElement),
    what: 'graph',
    entries,
    trust,
    load: (given, progress) => worker.load('graph', given, progress),
    unloaded: () => {
      run.disabled = true;
      output.hidden = true;
      alertIn(alert);
    },
    loaded: ({ description }) => {
      run.disabled = false;
      input.value = example(description.inputs);
      hint.textContent = `Reads ${description.inputs.map(told).join('; ')}. Ctrl + Enter runs.`;
    },
    facts: ({ description }) => [
      ['Reads', description.inputs.map(told).join('; ')],
      ['Gives', description.outputs.map(told).join('; ')],
    ],
  });
  const compute = async () => {
    alertIn(alert);
    run.disabled = true;
    status.replaceChildren(h('p', { className: 'hint' }, 'Computing …'));
    try {
      const { json, ms } = await worker.run('compute', { json: input.value });
      output.textContent = json;
      output.hidden = false;
      status.replaceChildren(h('p', { className: 'hint' }, `Computed in ${milliseconds(ms)}`));
      input.removeAttribute('aria-invalid');
    } catch (error) {
      output.hidden = true;
      status.replaceChildren();
      input.setAttribute('aria-invalid', 'true');
      alertIn(alert, 'There is no result', error);
    } finally {
      run.disabled = false;
    }
  };
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!run.disabled) void compute();
  });
  runByKey(input, form);
  return () => card.loadChosen();
}

function told({ name, dtype, shape }: TensorInfo): string {
  return `${name}: ${dtype} ${showShape(shape)}`;
}

/** Zeros in the right shapes. */
function example(inputs: readonly TensorInfo[]): string {
  const count = inputs.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const tensors = inputs.map(({ dtype, shape }) => {
    const zero = dtype === 'bool' ? 'false' : '0';
    const data = count > MAX_EXAMPLE ? '' : Array.from({ length: elementCount(shape) }, () => zero).join(', ');
    return `{"dim-size": ${shape.length}, "shape": ${showShape(shape)},\n  "input-data": [${data}]}`;
  });
  return `[${tensors.join(',\n ')}]`;
}
