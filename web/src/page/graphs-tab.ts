// Tab three: a WASM graph on tensors in JSON.

import type { TensorInfo } from '../lib/graph.ts';
import { elementCount, showShape } from '../lib/tensor.ts';
import type { Entry } from './catalogue.ts';
import { ModuleWorker } from './client.ts';
import { element, milliseconds } from './dom.ts';
import { JsonForm } from './json-form.ts';
import type { Tasks } from './messages.ts';
import { ModuleCard } from './module-card.ts';
import type { TrustPanel } from './trust-panel.ts';

// A picture for ImageNet has 150,528; more numbers than this are no example but a burden.
const MAX_EXAMPLE = 200_000;

/** Makes the tab work; gives what loads its first graph. */
export function startGraphs(entries: readonly Entry[], trust: TrustPanel): () => void {
  const worker = new ModuleWorker();
  const hint = element('graph-hint', HTMLElement);
  const form: JsonForm = new JsonForm('graph', async () => {
    const { json, ms } = await worker.run('compute', { json: form.input.value });
    return { json, about: `Computed in ${milliseconds(ms)}` };
  });
  form.setReady(false);
  const card = new ModuleCard<Tasks['graph']['answer']>({
    place: element('graph-module', HTMLElement),
    what: 'graph',
    entries,
    trust,
    load: (given, progress) => worker.load('graph', given, progress),
    unloaded: () => form.setReady(false),
    loaded: ({ description }) => {
      form.setReady(true);
      form.input.value = example(description.inputs);
      hint.textContent = `Reads ${description.inputs.map(told).join('; ')}. Ctrl + Enter runs.`;
    },
    facts: ({ description }) => [
      ['Reads', description.inputs.map(told).join('; ')],
      ['Gives', description.outputs.map(told).join('; ')],
    ],
  });
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
