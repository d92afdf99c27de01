// LiteRT.js on a tensor from a file, in node. The library expects a browser: it loads its runtime
// with a script element and fetches files, so the few things that it touches are given to it.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { floats, options, run } from './timing.mjs';

const require = createRequire(import.meta.url);
const runtime = path.join(path.dirname(require.resolve('@litertjs/core')), '..', 'wasm');

globalThis.self = globalThis;
globalThis.importScripts = (script) => {
  const file = script.toString();
  globalThis.require = createRequire(file);
  globalThis.__filename = file;
  globalThis.__dirname = path.dirname(file);
  vm.runInThisContext(readFileSync(file, 'utf8'), { filename: file });
};
const { loadLiteRt, loadAndCompile, Tensor } = await import('@litertjs/core');

const asked = options();
await loadLiteRt(`${runtime}/`);
const model = await loadAndCompile(new Uint8Array(readFileSync(asked.model)), { accelerator: 'wasm' });
const input = floats(asked.input);
await run(asked, async () => {
  const given = new Tensor(input, asked.shape);
  const [found] = await model.run(given);
  const output = found.toTypedArray().slice();
  given.delete();
  found.delete();
  return output;
});
process.exit(0);
