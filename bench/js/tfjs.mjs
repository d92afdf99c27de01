// TensorFlow.js with its wasm backend (XNNPACK, SIMD, no threads) on a tensor from a file.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { floats, options, run } from './timing.mjs';

const require = createRequire(import.meta.url);
const tf = require('@tensorflow/tfjs-core');
const { loadGraphModel } = require('@tensorflow/tfjs-converter');
const wasm = require('@tensorflow/tfjs-backend-wasm');

const asked = options();
wasm.setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}/`);
tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
await tf.setBackend('wasm');
await tf.ready();
const made = JSON.parse(readFileSync(asked.model, 'utf8'));
const weights = readFileSync(asked.model.replace(/\.json$/, '.bin'));
const model = await loadGraphModel(tf.io.fromMemory({
  modelTopology: made.modelTopology,
  weightSpecs: made.weightSpecs,
  weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.byteLength),
}));
const input = floats(asked.input);
await run(asked, async () => {
  const given = tf.tensor(input, asked.shape, 'float32');
  const found = model.execute({ [made.input]: given }, made.output);
  const output = await found.data();
  given.dispose();
  found.dispose();
  return output;
});
