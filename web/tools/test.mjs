// Runs the tests: bundles each of tests/ for Node.js, runs them there, and ends with one line that
// counts them, as the project's other tests do.
//
//   npm test                  all of them
//   npm test -- claims page   those whose file names begin so
// @ts-check

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const web = fileURLToPath(new URL('..', import.meta.url));
const output = path.join(web, 'build', 'tests');
const wanted = process.argv.slice(2);
const files = readdirSync(path.join(web, 'tests')).filter(
  (name) => name.endsWith('.test.ts') && (wanted.length === 0 || wanted.some((begins) => name.startsWith(begins))),
);
if (files.length === 0) {
  process.stderr.write(`error: no test begins with ${wanted.join(' or ')}\n`);
  process.exit(2);
}
rmSync(output, { recursive: true, force: true });
mkdirSync(output, { recursive: true });
await build({
  entryPoints: files.map((name) => path.join(web, 'tests', name)),
  outdir: output,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  format: 'esm',
  packages: 'external',
  sourcemap: 'inline',
  target: 'es2022',
});
// Older versions of Node.js have relaxed SIMD behind a flag, which newer ones do not know. A module
// with one `i8x16.relaxed_swizzle`, as in src/lib/simd.ts:
const relaxed = Buffer.from('0061736d010000000105016000017b030201000a0f010d004101fd0f4102fd0ffd80020b', 'hex');
const flags = WebAssembly.validate(relaxed) ? [] : ['--experimental-wasm-relaxed-simd'];
const tap = path.join(output, 'tap.txt');
const reporters = ['spec', 'stdout', 'tap', tap];
const { status } = spawnSync(
  process.execPath,
  [
    ...flags,
    '--enable-source-maps',
    '--no-warnings',
    '--test',
    '--test-concurrency=1',
    ...reporters.map((value, index) => `--test-reporter${index % 2 ? '-destination' : ''}=${value}`),
    ...files.map((name) => path.join(output, name.replace(/\.ts$/, '.mjs'))),
  ],
  { cwd: web, stdio: 'inherit', env: { ...process.env, GRAPHLET_WEB: web } },
);
const counted = readFileSync(tap, 'utf8');
const count = (/** @type {string} */ what) => Number(counted.match(new RegExp(`^# ${what} (\\d+)$`, 'm'))?.[1] ?? 0);
for (const [, why] of counted.matchAll(/^ *ok .* # SKIP (.*)$/gm)) process.stdout.write(`skipped: ${why}\n`);
const failed = count('fail') + count('cancelled');
const result = status === 0 ? 'ok' : 'FAILED';
process.stdout.write(
  `test result: ${result}. ${count('pass')} passed; ${failed} failed; ${count('skipped')} skipped\n`,
);
process.exit(status === 0 ? 0 : 1);
