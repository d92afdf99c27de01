// docs/web.png: the tab of pictures with a classified seven, in the system's Chromium.
//
//   npm run build && node tools/screenshot.mjs [FILE]
// @ts-check

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { findChromium, launch } from './chromium.mjs';
import { server } from './server.mjs';

const web = fileURLToPath(new URL('..', import.meta.url));
const file = process.argv[2] ?? path.join(web, '..', 'docs', 'web.png');
const executable = findChromium();
if (executable === undefined) throw new Error('no Chromium is here: scripts/setup --dev');
const serving = server(path.join(web, 'dist'));
await new Promise((resolve) => serving.listen(0, '127.0.0.1', () => resolve(undefined)));
const address = serving.address();
const port = typeof address === 'object' && address ? address.port : 0;
const browser = await launch(executable);
try {
  const page = await browser.newPage({ viewport: { width: 960, height: 700 } });
  await page.goto(`http://127.0.0.1:${port}/#pictures`);
  await page.waitForSelector('#picture-module .verified');
  // Often enough that the engine has compiled what it runs.
  for (let round = 0; round < 40; round += 1) {
    await page.setInputFiles('#picture-file', path.join(web, '..', 'models', 'digits', 'samples', '7.png'));
    await page.waitForSelector('#classes li');
  }
  await page.evaluate(() => {
    // Which machine made the picture is nobody's concern.
    for (const fact of document.querySelectorAll('.verified, dd')) {
      fact.textContent = fact.textContent.replace('development issuer of this machine', 'development issuer');
    }
  });
  const bottom = await page.$eval('#picture-module', (card) => card.getBoundingClientRect().bottom);
  await page.setViewportSize({ width: 960, height: Math.ceil(bottom) + 24 });
  await page.screenshot({ path: file });
} finally {
  await browser.close();
  serving.close();
}
