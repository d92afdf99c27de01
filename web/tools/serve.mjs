// Serves dist/ on this machine: npm run serve -- [--port 8088] [--host 127.0.0.1]
// @ts-check

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** @type {Readonly<Record<string, string>>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.wasm': 'application/wasm',
};
const HEADERS = {
  // As in index.html; here it holds for the worker too, and nobody may frame the page.
  'content-security-policy':
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
    "worker-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
  'permissions-policy': 'camera=(self), microphone=(), geolocation=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  // An isolated page gets a clock of 5 microseconds instead of 100.
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  // Asked each time whether it changed; what is kept for offline use is the service worker's.
  'cache-control': 'no-cache',
};

/**
 * A server of a folder's files.
 * @param {string} folder
 */
export function server(folder) {
  const root = path.resolve(folder);
  return createServer((request, response) => {
    const answer = (/** @type {number} */ status, /** @type {string} */ text, more = {}) => {
      response.writeHead(status, { ...HEADERS, 'content-type': 'text/plain; charset=utf-8', ...more });
      response.end(request.method === 'HEAD' ? undefined : `${text}\n`);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(405, 'GET and HEAD', { allow: 'GET, HEAD' });
      return;
    }
    let file;
    try {
      const { pathname } = new URL(request.url ?? '/', 'http://localhost');
      file = path.join(root, decodeURIComponent(pathname));
      if (file !== root && !file.startsWith(root + path.sep)) throw new Error('outside');
      if (statSync(file).isDirectory()) file = path.join(file, 'index.html');
      const { size, mtimeMs } = statSync(file);
      const etag = `"${size.toString(16)}-${Math.round(mtimeMs).toString(16)}"`;
      if (request.headers['if-none-match'] === etag) {
        response.writeHead(304, { ...HEADERS, etag });
        response.end();
        return;
      }
      const type = TYPES[path.extname(file)] ?? 'application/octet-stream';
      response.writeHead(200, { ...HEADERS, etag, 'content-type': type, 'content-length': size });
    } catch {
      answer(404, 'not here');
      return;
    }
    if (request.method === 'HEAD') response.end();
    else createReadStream(file).on('error', () => response.destroy()).pipe(response);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { port: { type: 'string', default: '8088' }, host: { type: 'string', default: '127.0.0.1' } },
  });
  const dist = fileURLToPath(new URL('../dist', import.meta.url));
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    process.stderr.write(`error: ${values.port} is no port\n`);
    process.exit(2);
  }
  if (!existsSync(path.join(dist, 'index.html'))) {
    process.stderr.write('error: the page is not built\nhint: npm run build\n');
    process.exit(2);
  }
  server(dist)
    .on('error', (error) => {
      process.stderr.write(`error: ${error.message}\n`);
      process.exit(1);
    })
    .listen(port, values.host, function listening() {
      const address = this.address();
      const bound = typeof address === 'object' && address ? address.port : port;
      process.stderr.write(`serving on http://${values.host === '127.0.0.1' ? 'localhost' : values.host}:${bound}/\n`);
    });
}
