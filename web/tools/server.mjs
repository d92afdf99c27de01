// A server of static files, with the headers that the page wants. For this machine: a real server
// would compress, too.
// @ts-check

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';

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
    else
      createReadStream(file)
        .on('error', () => response.destroy())
        .pipe(response);
  });
}
