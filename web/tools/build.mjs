// Builds the package (lib/) and the page (dist/), with the modules that are there.
//
//   npm run build                        modules of public/models
//   npm run build -- --module FILE.wasm  and these files too
//
// public/models/NAME/ holds a module's builds, relaxed-simd.wasm and simd128.wasm (or module.wasm,
// of which nothing is known), and in samples/ pictures to try it with. `make web` fills it.
// @ts-check

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

/** @typedef {import('../src/page/catalogue.ts').Catalogue} Catalogue */
/** @typedef {import('../src/page/catalogue.ts').Entry} Entry */
/** @typedef {import('../src/lib/simd.ts').SimdLevel} SimdLevel */

const web = fileURLToPath(new URL('..', import.meta.url));
const dist = path.join(web, 'dist');
const models = path.join(web, 'public', 'models');
const page = path.join(web, 'src', 'page');
/** @type {Readonly<Record<string, SimdLevel>>} */
const VARIANTS = { 'relaxed-simd.wasm': 'relaxed', 'simd128.wasm': 'simd128', 'module.wasm': 'none' };
const STATIC = ['index.html', 'style.css', 'icon.svg', 'page.webmanifest'];

// A file that is no module is told in a line, not with a trace.
process.on('uncaughtException', (error) => {
  process.stderr.write(`error: ${error.message}\n`);
  process.exit(1);
});
const asked = parseArgs({ options: { module: { type: 'string', multiple: true, default: [] } } }).values;

// The library first: as it is published, and to read modules with below.
rmSync(path.join(web, 'lib'), { recursive: true, force: true });
execFileSync(process.execPath, [path.join(web, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.lib.json'], {
  cwd: web,
  stdio: 'inherit',
});
// Built just now: types come from the sources, which are there before.
const { sections } = /** @type {typeof import('../src/lib/sections.ts')} */ (await library('sections'));
const { GraphletError } = /** @type {typeof import('../src/lib/errors.ts')} */ (await library('errors'));
const { verify } = /** @type {typeof import('../src/lib/verify.ts')} */ (await library('verify'));
const { NO_TRUST } = /** @type {typeof import('../src/lib/trust.ts')} */ (await library('trust'));

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
/** @type {import('esbuild').BuildOptions} */
const common = {
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  absWorkingDir: web,
};
await build({ ...common, entryPoints: [path.join(page, 'main.ts'), path.join(page, 'worker.ts')], outdir: dist });
for (const name of STATIC) {
  if (name.endsWith('.css')) await build({ ...common, entryPoints: [path.join(page, name)], outdir: dist });
  else cpSync(path.join(page, name), path.join(dist, name));
}
const shell = [...STATIC, 'main.js', 'worker.js'];
const version = createHash('sha256');
for (const name of shell) version.update(name).update(readFileSync(path.join(dist, name)));
await build({
  ...common,
  format: 'iife',
  entryPoints: [path.join(page, 'service-worker.ts')],
  outdir: dist,
  define: { SHELL: JSON.stringify(['./', ...shell]), VERSION: JSON.stringify(version.digest('hex').slice(0, 12)) },
});

/** @type {{ actors: Entry[], graphs: Entry[], operators: Entry[] }} */
const catalogue = { actors: [], graphs: [], operators: [] };
if (existsSync(models)) {
  for (const id of readdirSync(models).sort()) {
    const files = Object.keys(VARIANTS).filter((file) => existsSync(path.join(models, id, file)));
    await add(
      id,
      files.map((file) => [path.join(models, id, file), VARIANTS[file] ?? 'none']),
      path.join(models, id, 'samples'),
    );
  }
}
for (const file of asked.module) {
  const id = path.basename(file, '.wasm').replaceAll(/[^\w.-]/g, '_');
  await add(id, [[path.resolve(file), 'none']]);
}
writeFileSync(path.join(dist, 'catalogue.json'), JSON.stringify(catalogue));
const trust = path.join(web, 'public', 'trust.json');
cpSync(existsSync(trust) ? trust : path.join(web, 'tools', 'no-trust.json'), path.join(dist, 'trust.json'));

const kilobytes =
  shell.concat('service-worker.js').reduce((sum, name) => sum + readFileSync(path.join(dist, name)).length, 0) / 1e3;
const found = Object.entries(catalogue).map(([kind, entries]) => `${entries.length} ${kind}`);
process.stderr.write(
  `wrote ${path.relative(process.cwd(), dist)}: page of ${kilobytes.toFixed(0)} kB, ${found.join(', ')}\n`,
);
if (catalogue.actors.length === 0 || catalogue.operators.length === 0) {
  process.stderr.write('hint: `make web` in the folder above builds the digits and the operator library\n');
}

/**
 * A module of the package.
 * @param {string} name
 * @returns {Promise<unknown>}
 */
function library(name) {
  return import(new URL(`../lib/${name}.js`, import.meta.url).href);
}

/**
 * Copies a module's builds into the page and lists them.
 * @param {string} id
 * @param {[file: string, simd: SimdLevel][]} builds
 * @param {string} [samples]
 */
async function add(id, builds, samples) {
  /** @type {Entry['variants'][number][]} */
  const variants = [];
  /** @type {ReturnType<typeof about> | undefined} */
  let first;
  for (const [file, simd] of builds) {
    const bytes = Uint8Array.from(readFileSync(file));
    try {
      first ??= about(bytes);
    } catch (error) {
      throw new Error(`${file}: ${String(error)}`);
    }
    // Only a module that holds is worth listing; who signed it is for the page to judge.
    await verify(bytes, NO_TRUST).catch((/** @type {unknown} */ error) => {
      if (!(error instanceof GraphletError) || error.code !== 'untrusted_issuer')
        throw new Error(`${file}: ${String(error)}`);
    });
    variants.push({ simd, url: `models/${id}/${place(file, `models/${id}`)}`, bytes: bytes.length });
  }
  if (!first) return;
  const pictures = samples && existsSync(samples) ? readdirSync(samples).sort() : [];
  const entry = {
    id,
    title: first.title || id,
    variants,
    samples: pictures.map(
      (name) => `models/${id}/samples/${place(path.join(samples ?? '', name), `models/${id}/samples`)}`,
    ),
  };
  catalogue[first.kind].push(entry);
}

/**
 * Copies a file into the page; gives the last part of its address, which changes with its contents.
 * @param {string} file
 * @param {string} folder
 */
function place(file, folder) {
  const name = path.basename(file);
  mkdirSync(path.join(dist, folder), { recursive: true });
  cpSync(file, path.join(dist, folder, name));
  const digest = createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 12);
  return `${encodeURIComponent(name)}?v=${digest}`;
}

/**
 * What kind of module it is, and what it calls itself.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
function about(bytes) {
  let title = '';
  let exported = '';
  for (const section of sections(bytes)) {
    if (section.id === 7) exported = Buffer.from(section.data).toString('latin1');
    if (section.name === 'graphlet.model') {
      const { model } = JSON.parse(Buffer.from(section.data).toString()).spec ?? {};
      if (model) title = `${model.name} ${model.version}`;
    }
  }
  /** @type {keyof Catalogue} */
  let kind;
  if (exported.includes('__guest_call')) kind = 'actors';
  else if (exported.includes('graphlet_describe')) kind = 'graphs';
  else if (exported.includes('graphlet_alloc')) kind = 'operators';
  else throw new Error('neither an actor, nor a WASM graph, nor the operator library');
  return { title, kind };
}
