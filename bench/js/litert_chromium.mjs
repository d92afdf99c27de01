// LiteRT.js on a tensor from a file, in a headless Chromium (--browser FILE --profile FOLDER
// [--realtime PRIORITY]). This process serves the page, the library, the model and the tensor on
// loopback, and passes on what the page reports.
import { execFileSync, spawn } from 'node:child_process';
import { createReadStream, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { options, report } from './timing.mjs';

const asked = options();
const require = createRequire(import.meta.url);
const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const modules = path.resolve(require.resolve('@litertjs/core'), '../../../..');
const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };
let browser;

function finish(code, message) {
  if (message) process.stderr.write(`${message}\n`);
  browser?.kill('SIGKILL');
  process.exit(code);
}

// The page's thread, and no other, may take the core from everything else while it is timed: a
// whole browser with real-time priority on one core waits for itself. The page's process is the
// renderer that has worked longest.
function realtime(on) {
  if (!asked.realtime) return;
  const stat = (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  const renderers = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return words.includes('--type=renderer') && words.includes(asked.profile);
    } catch {
      return false;
    }
  });
  const [page] = renderers.sort((a, b) => Number(stat(b)[11]) - Number(stat(a)[11]));
  if (page) execFileSync('chrt', on ? ['-f', '-p', asked.realtime, page] : ['-o', '-p', '0', page]);
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

const server = createServer(async (request, response) => {
  // An isolated page gets a clock of 5 microseconds instead of 100.
  response.setHeader('cross-origin-opener-policy', 'same-origin');
  response.setHeader('cross-origin-embedder-policy', 'require-corp');
  const { pathname } = new URL(request.url, 'http://localhost');
  const file = (name) => {
    response.setHeader('content-type', types[path.extname(name)] ?? 'application/octet-stream');
    createReadStream(name).on('error', () => { response.statusCode = 404; response.end(); }).pipe(response);
  };
  if (pathname === '/') file(path.join(here, 'litert_page.html'));
  else if (pathname === '/warm.mjs') file(path.join(here, 'warm.mjs'));
  else if (pathname === '/asked') response.end(JSON.stringify(asked));
  else if (pathname === '/input') file(asked.input);
  else if (pathname === '/model') file(asked.model);
  else if (pathname.startsWith('/modules/@litertjs/')) {
    const name = path.join(modules, path.normalize(pathname.slice('/modules'.length)));
    file(name);
  } else if (pathname === '/report/event') {
    report(JSON.parse((await body(request)).toString()));
    response.end();
  } else if (pathname === '/report/warm') {
    realtime(true);
    response.end();
  } else if (pathname === '/report/timed') {
    realtime(false);
    response.end();
  } else if (pathname === '/report/output') {
    writeFileSync(asked.output, await body(request));
    response.end();
  } else if (pathname === '/report/done') {
    report(JSON.parse((await body(request)).toString()));
    response.end();
    finish(0);
  } else if (pathname === '/report/failed') {
    finish(1, (await body(request)).toString());
  } else {
    response.statusCode = 404;
    response.end();
  }
});
process.on('SIGTERM', () => finish(1, 'stopped'));
process.on('SIGINT', () => finish(1, 'stopped'));
server.listen(0, '127.0.0.1', () => {
  const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];
  browser = spawn(asked.browser, [
    '--headless=new', ...sandbox, '--disable-gpu', '--no-first-run', '--no-default-browser-check',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-default-apps', '--disable-extensions', '--no-pings', '--mute-audio',
    '--disable-breakpad', '--disable-crash-reporter',
    // Nothing but this machine is asked for anything.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    `--user-data-dir=${asked.profile}`, `http://127.0.0.1:${server.address().port}/`,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  let noise = '';
  browser.stderr.on('data', (data) => { noise = (noise + data).slice(-4000); });
  browser.on('error', (error) => finish(1, `the browser does not start: ${error.message}`));
  browser.on('exit', (code) => finish(1, `the browser ended (${code}): ${noise}`));
});
