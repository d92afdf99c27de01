// onnxruntime-web on a tensor from a file: its wasm backend, one thread.
import * as ort from 'onnxruntime-web/wasm';
import { readFileSync } from 'node:fs';
import { floats, options, run } from './timing.mjs';

const asked = options();
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(asked.model), {
  executionProviders: ['wasm'],
  graphOptimizationLevel: 'all',
});
const input = floats(asked.input);
const [inputName] = session.inputNames;
const [outputName] = session.outputNames;
await run(asked, async () => {
  const given = new ort.Tensor('float32', input, asked.shape);
  const found = await session.run({ [inputName]: given });
  return found[outputName].data;
});
