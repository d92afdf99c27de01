// Serves dist/ on this machine: npm run serve -- [--port 8088] [--host 127.0.0.1]
// @ts-check

import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { server } from './server.mjs';

const { values } = options();
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
const serving = server(dist);
serving.on('error', (/** @type {NodeJS.ErrnoException} */ error) => {
  const hint = error.code === 'EADDRINUSE' ? 'hint: npm run serve -- --port 8089\n' : '';
  process.stderr.write(`error: ${error.message}\n${hint}`);
  process.exit(1);
});
serving.listen(port, values.host, () => {
  const address = serving.address();
  const bound = typeof address === 'object' && address ? address.port : port;
  process.stderr.write(`serving on http://${values.host === '127.0.0.1' ? 'localhost' : values.host}:${bound}/\n`);
});

/** What was asked for. */
function options() {
  try {
    return parseArgs({
      options: { port: { type: 'string', default: '8088' }, host: { type: 'string', default: '127.0.0.1' } },
    });
  } catch (error) {
    process.stderr.write(
      `error: ${error instanceof Error ? error.message : String(error)}\nhint: npm run serve -- [--port 8088] [--host 127.0.0.1]\n`,
    );
    process.exit(2);
  }
}
