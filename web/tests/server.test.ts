// The server of static files: types, headers, what is not there, and what is outside.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { server } from '../tools/server.mjs';

interface Got {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

test('files are served with their types and headers, and nothing outside of the folder is', async (context) => {
  const base = mkdtempSync(path.join(tmpdir(), 'graphlet-web-'));
  const folder = path.join(base, 'dist');
  mkdirSync(path.join(folder, 'models'), { recursive: true });
  writeFileSync(path.join(base, 'secret.txt'), 'secret');
  mkdirSync(path.join(base, 'dist-more'));
  writeFileSync(path.join(base, 'dist-more', 'secret.txt'), 'secret');
  writeFileSync(path.join(folder, 'index.html'), '<p>page');
  writeFileSync(path.join(folder, 'models', 'm n.wasm'), 'module');
  const serving = server(folder);
  await new Promise<void>((resolve) => serving.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    serving.close();
    rmSync(base, { recursive: true });
  });
  const { port } = serving.address() as AddressInfo;
  // Not fetch, which would tidy the path.
  const get = (target: string, method = 'GET', headers: Record<string, string> = {}) =>
    new Promise<Got>((resolve, reject) => {
      const asking = request({ host: '127.0.0.1', port, path: target, method, headers }, (response) => {
        let body = '';
        response.on('data', (part: Buffer) => (body += part.toString()));
        response.on('end', () => {
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body });
        });
      });
      asking.on('error', reject);
      asking.end();
    });

  const page = await get('/');
  assert.deepEqual(
    [page.status, page.body, page.headers['content-type']],
    [200, '<p>page', 'text/html; charset=utf-8'],
  );
  assert.match(
    String(page.headers['content-security-policy']),
    /^default-src 'none'; script-src 'self' 'wasm-unsafe-eval';/,
  );
  assert.deepEqual(
    [page.headers['cross-origin-opener-policy'], page.headers['x-content-type-options']],
    ['same-origin', 'nosniff'],
  );
  const module = await get('/models/m%20n.wasm?v=1');
  assert.deepEqual([module.status, module.body, module.headers['content-type']], [200, 'module', 'application/wasm']);
  const head = await get('/', 'HEAD');
  assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '7']);
  assert.equal((await get('/', 'GET', { 'if-none-match': String(page.headers['etag']) })).status, 304);
  const post = await get('/', 'POST');
  assert.deepEqual([post.status, post.headers['allow']], [405, 'GET, HEAD']);
  for (const target of [
    '/nothing',
    '/models',
    '/../secret.txt',
    '/%2e%2e/secret.txt',
    '/..%2fsecret.txt',
    '/%2e%2e%2fdist-more/secret.txt',
    '/%ff',
    '/%00',
    '//etc/passwd',
    '/index.html/',
    '/models/../../secret.txt',
  ]) {
    const { status, body } = await get(target);
    assert.deepEqual([status, body.includes('secret')], [404, false], target);
  }
});
