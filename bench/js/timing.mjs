// What the JavaScript peers share: arguments, timing, report; as peers/timing does for Rust.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { warm } from './warm.mjs';

/** `--model FILE --input FILE --shape N,… --runs N --warmup N --output FILE`, and what a peer adds. */
export function options() {
  const found = {};
  for (let i = 2; i + 1 < process.argv.length; i += 2) {
    found[process.argv[i].replace(/^--/, '')] = process.argv[i + 1];
  }
  for (const name of ['model', 'input', 'shape', 'runs', 'warmup', 'output']) {
    if (found[name] === undefined) throw new Error(`--${name} is missing`);
  }
  found.shape = found.shape.split(',').map(Number);
  found.runs = Number(found.runs);
  found.warmup = Number(found.warmup);
  return found;
}

/** A file of 32-bit floats, little-endian. */
export function floats(path) {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

export function report(event) {
  // A pipe is written at once: the driver stamps the line when it arrives.
  writeFileSync(1, `${JSON.stringify(event)}\n`);
}

export function best(output) {
  let index = 0;
  for (let i = 1; i < output.length; i += 1) if (output[i] > output[index]) index = i;
  return index;
}

/**
 * With `--realtime PRIORITY`: this thread, and no other, takes the core from everything else while
 * it is timed. V8's other threads, which compile, would never get it from a process that has it.
 */
export function realtime(asked, on) {
  if (!asked.realtime) return;
  const how = on ? ['-f', '-p', asked.realtime] : ['-o', '-p', '0'];
  execFileSync('chrt', [...how, String(process.pid)]);
}

/** Calls `infer` (tensor in memory to tensor in memory, maybe a promise) and reports. */
export async function run(asked, infer) {
  const { runs, warmup, output: path } = asked;
  let output = await infer();
  report({ event: 'first', label: best(output) });
  await warm(warmup, infer);
  realtime(asked, true);
  const ms = [];
  for (let i = 0; i < runs; i += 1) {
    const begun = performance.now();
    output = await infer();
    ms.push(Number((performance.now() - begun).toFixed(4)));
  }
  realtime(asked, false);
  writeFileSync(path, Buffer.from(output.buffer, output.byteOffset, output.byteLength));
  report({ event: 'done', ms });
}

/** Whether this V8 takes relaxed SIMD: a module with one `i8x16.relaxed_swizzle`. */
export function relaxedSimd() {
  return WebAssembly.validate(new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253,
    15, 65, 2, 253, 15, 253, 128, 2, 11,
  ]));
}
