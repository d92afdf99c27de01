// Brings a V8 to the code that it ends up with, in node and in a page alike.
//
// V8 compiles wasm twice, the second time on other threads, which here share the one core. Until
// that is done the figures are of the first, four times slower code: so the warm-up lasts this
// long at least, leaves the core to those threads for as long as it took it, and goes on while
// runs still get faster.
const AT_LEAST_MS = 3000;
const AT_MOST_MS = 30000;
const PAUSE_MS = 20;
const FASTER = 0.9;
const RECENT = 3;

/** Calls `infer` until it is as fast as it will be; not at all when `warmup` is 0. */
export async function warm(warmup, infer) {
  if (warmup === 0) return;
  const started = performance.now();
  const times = [];
  for (;;) {
    const begun = performance.now();
    await infer();
    const took = performance.now() - begun;
    times.push(took);
    await new Promise((resolve) => { setTimeout(resolve, Math.max(PAUSE_MS, took)); });
    const elapsed = performance.now() - started;
    const recent = Math.min(...times.slice(-RECENT));
    const before = Math.min(...times.slice(0, -RECENT));
    const settled = times.length > 2 * RECENT && recent > before * FASTER;
    const enough = times.length >= warmup && elapsed > AT_LEAST_MS && settled;
    if (enough || elapsed > AT_MOST_MS) return;
  }
}
