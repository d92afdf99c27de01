// The page in a real Chromium: what people do with it, and what they do wrong. The page is built
// here, with the modules of public/models and its own trust file.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { deflateSync } from 'node:zlib';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { server } from '../tools/server.mjs';
import { findChromium, launch } from '../tools/chromium.mjs';
import {
  constant,
  custom,
  guestModule,
  ISSUER,
  join,
  latin1,
  MODULE,
  root,
  SEVEN,
  signed,
  token,
  web,
} from './common.ts';

const SAMPLES = path.dirname(SEVEN);
const shared = process.env['GRAPHLET_SHARED'] ?? path.join(root, '..', 'shared');
const graphlet = process.env['GRAPHLET'];
const dist = path.join(web, 'dist');

let why = '';
let browser: Browser | undefined;
let serving: Server | undefined;
let origin = '';

before(async () => {
  const executable = findChromium();
  if (executable === undefined) why = 'no Chromium is here: scripts/setup --dev';
  else if (!existsSync(path.join(web, 'public/models/digits/relaxed-simd.wasm')))
    why = 'the modules are not built: make web';
  if (executable === undefined || why !== '') return;
  const ran = spawnSync(process.execPath, ['tools/build.mjs'], { cwd: web, encoding: 'utf8' });
  assert.equal(ran.status, 0, ran.stderr);
  serving = server(dist);
  await new Promise<void>((resolve) => serving?.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(serving.address() as AddressInfo).port}/`;
  browser = await launch(executable);
});

after(async () => {
  await browser?.close();
  serving?.closeAllConnections();
  serving?.close();
});

/** Longest time for anything that should happen soon, on a machine that does other things too. */
const PATIENCE = 120_000;

interface Opened {
  page: Page;
  context: BrowserContext;
  errors: string[];
}

/** A test with a new page; fails when the page reports an error that nobody expected. */
function inPage(name: string, work: (opened: Opened) => Promise<void>, hash = '', camera = false): void {
  test(name, { timeout: 300_000 }, async (test: TestContext) => {
    if (!browser) {
      test.skip(why);
      return;
    }
    const context = await browser.newContext({ permissions: camera ? ['camera'] : [] });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') errors.push(message.text());
    });
    try {
      await page.goto(origin + hash);
      await page.waitForSelector('body[data-ready]');
      await work({ page, context, errors });
      assert.deepEqual(errors, [], 'the page reported errors');
    } finally {
      await context.close();
    }
  });
}

const loaded = (page: Page, place = 'picture') => page.waitForSelector(`#${place}-module .verified`);
const alert = (page: Page, place: string) => page.locator(`#${place} .alert`);

async function classes(page: Page): Promise<{ label: string; score: number }[]> {
  await page.waitForSelector('#classes li');
  return page.$$eval<{ label: string; score: number }[], HTMLElement>('#classes li', (items) =>
    items.map((item) => ({ label: item.querySelector('span')?.textContent ?? '', score: Number(item.title) })),
  );
}

/** What `graphlet classify` says about a picture, by the build that Chromium picks. */
function classified(module: string, picture: string, top = 5): { label: string; score: number }[] {
  assert.ok(graphlet, 'GRAPHLET names the command');
  const ran = spawnSync(graphlet, ['classify', '--json', '--top', String(top), module, picture], { encoding: 'utf8' });
  assert.equal(ran.status, 0, ran.stderr);
  return (JSON.parse(ran.stdout) as { classes: { label: string; score: number }[] }).classes;
}

inPage('the operator library computes an example, and what comes out can go in again', async ({ page }) => {
  await page.click('#operator-run');
  await page.waitForSelector('#operator-output:visible');
  assert.equal(
    await page.textContent('#operator-output'),
    '{"input-data": [4, 6, 8, 10], "dim-size": 2, "shape": [2, 2]}',
  );
  assert.match((await page.textContent('#operator-status')) ?? '', /^Add of FP32, [\d.]+ ms$/);
  for (const [operator, type, result] of [
    ['Mul', 'INT32', '{"input-data": [10, 40, 90, 40, 100, 180], "dim-size": 2, "shape": [2, 3]}'],
    ['Argmax', 'INT8', '{"input-data": [1, 2], "dim-size": 1, "shape": [2]}'],
    ['EqualCount', 'FP32', '{"input-data": [2], "dim-size": 0, "shape": []}'],
  ] as const) {
    await page.selectOption('#operator', operator);
    await page.selectOption('#data-type', type);
    await page.click('#operator-run');
    await page.waitForFunction((text) => document.querySelector('#operator-output')?.textContent === text, result);
  }
  await page.click('#operator-feed');
  assert.equal(await page.inputValue('#operator-input'), '[{"input-data": [2], "dim-size": 0, "shape": []}]');
});

inPage('wrong JSON, shapes and types are told in a sentence that is read out', async ({ page }) => {
  for (const [operator, type, input, message] of [
    ['Add', 'FP32', 'nonsense', /not a list of tensors: expected a value \(line 1, column 1\)/],
    ['Add', 'FP32', '', /the text ends/],
    ['Add', 'FP32', '[{"input-data": [1, 2], "dim-size": 1, "shape": [3]}]', /2 numbers do not make the shape \[3\]/],
    ['Add', 'INT8', '[{"input-data": [300], "dim-size": 1, "shape": [1]}]', /`300` is no INT8/],
    ['Add', 'FP32', '[{"input-data": [1], "dim-size": 1, "shape": [1]}]', /two/i],
    [
      'Mul',
      'FP32',
      '[{"input-data": [1, 2], "dim-size": 1, "shape": [2]}, {"input-data": [1, 2, 3], "dim-size": 1, "shape": [3]}]',
      /broadcast|shape/i,
    ],
  ] as const) {
    await page.selectOption('#operator', operator);
    await page.selectOption('#data-type', type);
    await page.fill('#operator-input', input);
    await page.click('#operator-run');
    await page.waitForFunction(() => !document.querySelector<HTMLButtonElement>('#operator-run')?.disabled);
    assert.match((await alert(page, 'operator-alert').textContent()) ?? '', message, input);
    assert.equal(await page.isVisible('#operator-output'), false);
    assert.equal(await page.getAttribute('#operator-input', 'aria-invalid'), 'true');
  }
  assert.equal(await page.getAttribute('#operator-alert', 'role'), 'alert');
  await page.click('#operator-example');
  await page.click('#operator-run');
  await page.waitForSelector('#operator-output:visible');
  assert.equal(await alert(page, 'operator-alert').count(), 0);
});

inPage('the tabs and forms work by the keyboard alone', async ({ page }) => {
  const focused = () => page.evaluate(() => document.activeElement?.id);
  await page.focus('#tab-operators');
  for (const [key, id] of [
    ['ArrowRight', 'pictures'],
    ['ArrowRight', 'graphs'],
    ['ArrowRight', 'operators'],
    ['ArrowLeft', 'graphs'],
    ['Home', 'operators'],
    ['End', 'graphs'],
    ['Home', 'operators'],
  ] as const) {
    await page.keyboard.press(key);
    assert.equal(await focused(), `tab-${id}`, key);
    const shown = await page.$$eval('[role=tabpanel]', (panels) =>
      panels.filter((panel) => panel.checkVisibility()).map((panel) => panel.id),
    );
    assert.deepEqual(shown, [id]);
    const stops = await page.$$eval('[role=tab]', (tabs) =>
      tabs.filter((tab) => (tab as HTMLElement).tabIndex === 0).map((tab) => tab.id),
    );
    assert.deepEqual(stops, [`tab-${id}`]);
  }
  assert.equal(new URL(page.url()).hash, '#operators');
  for (const id of ['operators', 'operator', 'data-type', 'operator-input']) {
    await page.keyboard.press('Tab');
    assert.equal(await focused(), id);
  }
  await page.keyboard.press('Control+Enter');
  await page.waitForSelector('#operator-output:visible');
});

inPage('every control has a name, and text has contrast, light and dark', async ({ page }) => {
  await page.click('#tab-pictures');
  await loaded(page);
  const nameless = await page.$$eval('button, input, select, textarea', (controls) =>
    controls
      .filter((control) => {
        const labels = (control as HTMLInputElement).labels;
        const named = control.getAttribute('aria-label') ?? '';
        const text = `${control.textContent}${[...control.querySelectorAll('img')].map((image) => image.alt).join('')}`;
        return named + text === '' && (labels?.length ?? 0) === 0;
      })
      .map((control) => control.outerHTML),
  );
  assert.deepEqual(nameless, []);
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    const pairs = await page.evaluate(() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name: string) => {
        const hex = style
          .getPropertyValue(name)
          .trim()
          .replace(/^#(.)(.)(.)$/, '#$1$1$2$2$3$3');
        const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
          const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
          return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const texts = [
        ['--ink', '--ground'],
        ['--ink', '--paper'],
        ['--ink', '--bar'],
        ['--soft', '--ground'],
        ['--soft', '--paper'],
        ['--accent', '--ground'],
        ['--accent-ink', '--accent'],
        ['--bad', '--bad-ground'],
        ['--good', '--good-ground'],
      ] as const;
      return texts.map(([ink, ground]) => {
        const [a, b] = [light(ink), light(ground)];
        return { ink, ground, contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) };
      });
    });
    for (const { ink, ground, contrast } of pairs)
      assert.ok(contrast >= 4.5, `${colorScheme}: ${ink} on ${ground} has ${contrast.toFixed(2)}`);
  }
});

inPage('the signed actor names all samples as graphlet classify does, to the last digit', async ({ page }) => {
  await page.click('#tab-pictures');
  await loaded(page);
  assert.match((await page.textContent('#picture-module')) ?? '', /built for relaxed SIMD/);
  for (const sample of readdirSync(SAMPLES)) {
    await page.setInputFiles('#picture-file', path.join(SAMPLES, sample));
    await page.waitForFunction(
      (name) => document.querySelector<HTMLImageElement>('#preview')?.alt.endsWith(name),
      sample,
    );
    const found = await classes(page);
    const expected = classified(path.join(web, 'public/models/digits/relaxed-simd.wasm'), path.join(SAMPLES, sample));
    assert.deepEqual(found, expected, sample);
    assert.equal(await page.textContent('#picture-status'), expected[0]?.label);
  }
  const phases = await page.$$eval('#phases th', (heads) => heads.map((head) => head.textContent));
  assert.deepEqual(phases, ['Decode', 'Resize and normalise', 'Graph', 'Message and answer', 'All']);
});

inPage(
  'an engine without relaxed SIMD gets the build without, and names the same digit',
  async ({ page }) => {
    await page.addInitScript(() => {
      const validate = WebAssembly.validate.bind(WebAssembly);
      // The probe's opcode, i8x16.relaxed_swizzle.
      WebAssembly.validate = (bytes) =>
        !new Uint8Array(bytes as ArrayBuffer).join().includes('253,128,2') && validate(bytes);
    });
    await page.reload();
    await loaded(page);
    assert.match(
      (await page.textContent('#picture-module')) ?? '',
      /built for 128-bit SIMD; this browser has 128-bit SIMD/,
    );
    await page.setInputFiles('#picture-file', SEVEN);
    assert.deepEqual(await classes(page), classified(path.join(web, 'public/models/digits/simd128.wasm'), SEVEN));
  },
  '#pictures',
);

inPage('a sample is one click, a picture may be dropped or pasted', async ({ page }) => {
  await page.click('#tab-pictures');
  await page.click('#samples button:nth-of-type(4)');
  assert.equal((await classes(page))[0]?.label, '3');
  const bytes = [...readFileSync(path.join(SAMPLES, '5.png'))];
  for (const kind of ['drop', 'paste'] as const) {
    await page.click('#samples button:nth-of-type(1)');
    await page.waitForFunction(() => document.querySelector('#picture-status')?.textContent === '0');
    await page.evaluate(
      ([kind, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], '5.png', { type: 'image/png' }));
        const event =
          kind === 'drop'
            ? new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true })
            : new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true });
        document.querySelector('#drop')?.dispatchEvent(event);
      },
      [kind, bytes] as const,
    );
    await page.waitForFunction(() => document.querySelector('#picture-status')?.textContent === '5');
  }
});

inPage('what is no picture, broken or too large is told, and the next picture goes well', async ({ page }) => {
  await page.click('#tab-pictures');
  await loaded(page);
  const seven = readFileSync(SEVEN);
  for (const [name, buffer, message] of [
    ['notes.txt', Buffer.from('no picture'), /not|format|image/i],
    ['empty.png', Buffer.alloc(0), /no image/],
    ['cut.png', seven.subarray(0, 80), /broken|cut|end|image/i],
    ['long.png', Buffer.concat([seven, Buffer.alloc(17 << 20)]), /17\.0 MiB, more than 16 MiB/],
    ['wide.png', png(40_000, 40_000), /pixels|large|limit/i],
  ] as const) {
    await page.setInputFiles('#picture-file', { name, mimeType: 'image/png', buffer });
    await page.waitForFunction(() => document.querySelector('#picture-alert .alert'));
    assert.match((await alert(page, 'picture-alert').textContent()) ?? '', message, name);
    assert.equal(await page.locator('#classes li').count(), 0);
    await page.setInputFiles('#picture-file', SEVEN);
    assert.equal((await classes(page))[0]?.label, '7');
    assert.equal(await alert(page, 'picture-alert').count(), 0);
  }
});

inPage(
  'a module that is changed, unsigned or of another kind is refused with its reason, and nothing of it runs',
  async ({ page }) => {
    await page.click('#tab-pictures');
    await loaded(page);
    const good = readFileSync(path.join(web, 'public/models/digits/relaxed-simd.wasm'));
    const changed = Buffer.from(good);
    changed[5000] = (changed[5000] ?? 0) ^ 1;
    const unsigned = good.subarray(0, good.indexOf('wasmcloud_jwt') - 4);
    for (const [name, buffer, message] of [
      ['changed.wasm', changed, /changed after it was signed|cannot|malformed/],
      ['unsigned.wasm', trimmed(unsigned), /not signed/],
      ['picture.wasm', readFileSync(SEVEN), /Not a WebAssembly module/],
      ['cut.wasm', good.subarray(0, -5), /longer than the rest/],
      ['forged.wasm', Buffer.from(join(MODULE, custom('jwt', token(join(MODULE, custom('x', '')))))), /another one/],
      ['graph.wasm', readFileSync(path.join(web, 'public/models/digits-graph/relaxed-simd.wasm')), /no actor/],
    ] as const) {
      await page.setInputFiles('#picture-module input[type=file]', { name, mimeType: 'application/wasm', buffer });
      await page.waitForSelector('#picture-module .alert');
      const text = (await page.textContent('#picture-module .alert')) ?? '';
      assert.match(text, message, name);
      assert.match(text, /^The model is refused/);
      assert.equal(await page.locator('#picture-module .verified').count(), 0);
      assert.equal(await page.locator('#picture-module .alert button').count(), 0, 'nothing to trust here');
    }
    // A picture waits for a model that runs.
    await page.setInputFiles('#picture-file', SEVEN);
    assert.match((await page.textContent('#picture-status')) ?? '', /Waiting for a model/);
    await page.setInputFiles('#picture-module input[type=file]', {
      name: 'good.wasm',
      mimeType: 'application/wasm',
      buffer: good,
    });
    await loaded(page);
    assert.equal((await classes(page))[0]?.label, '7');
  },
);

inPage(
  'a module of an unknown issuer is refused until somebody trusts it, and again when they do no more',
  async ({ page }) => {
    await page.click('#tab-pictures');
    await loaded(page);
    // Properly signed, by the tests' own key; expired or not is asked after the trust.
    const forever = (json: string) => json.replace(/"exp":\d+,/, '');
    const buffer = Buffer.from(signed(MODULE, { claims: forever }));
    const choose = () =>
      page.setInputFiles('#picture-module input[type=file]', { name: 'm.wasm', mimeType: 'application/wasm', buffer });
    const refusal = async () => {
      await page.waitForSelector('#picture-module .alert');
      return (await page.textContent('#picture-module .alert')) ?? '';
    };
    await choose();
    assert.match(await refusal(), /The issuer A\w{55} is not trusted here/);
    await page.click('#picture-module .alert button');
    // Trusted now; it is no actor, which is another matter.
    await page.waitForFunction(() =>
      document.querySelector('#picture-module .alert')?.textContent.includes('no actor'),
    );
    await page.reload();
    await page.waitForSelector('body[data-ready]');
    await loaded(page);
    await choose();
    assert.match(await refusal(), /no actor/);
    await page.click('#trust summary');
    assert.equal(await page.locator('#issuers li').count(), 2);
    await page.click('#issuers button');
    assert.equal(await page.locator('#issuers li').count(), 1);
    await choose();
    assert.match(await refusal(), /not trusted here/);
    await page.fill('#issuer-key', 'AMISTYPED');
    await page.keyboard.press('Enter');
    assert.match((await alert(page, 'issuer-alert').textContent()) ?? '', /56 characters/);
  },
);

inPage(
  'a module that does not come to an end is stopped, and the page goes on',
  async ({ page }) => {
    await page.clock.install();
    await page.reload();
    await page.click('#trust summary');
    await page.fill('#issuer-key', ISSUER);
    await page.keyboard.press('Enter');
    await loaded(page);
    const loop = [0x03, 0x40, 0x0c, 0, 0x0b];
    const forever = (json: string) => json.replace(/"exp":\d+,/, '');
    const choose = (code: number[]) => {
      const buffer = Buffer.from(signed(guestModule(code), { claims: forever }));
      return page.setInputFiles('#picture-module input[type=file]', {
        name: 'm.wasm',
        mimeType: 'application/wasm',
        buffer,
      });
    };
    await choose(loop);
    await page.waitForSelector('#picture-module [data-stage=compile]');
    await page.clock.fastForward(61_000);
    await page.waitForSelector('#picture-module .alert');
    assert.match((await page.textContent('#picture-module .alert')) ?? '', /did not start within 60 s and was stopped/);
    // One that answers the health request and not the picture, which is longer: if (length > 60) loop.
    await choose([0x20, 1, ...constant(60), 0x4b, 0x04, 0x40, ...loop, 0x0b]);
    await loaded(page);
    // Counts how often the page begins to wait for an answer. In the second round the worker is loaded
    // anew before that, which takes a moment that the clock does not see.
    await page.evaluate(() => {
      const original = window.setTimeout.bind(window);
      let waits = 0;
      window.setTimeout = ((...given: Parameters<typeof original>) => {
        if (given[1] === 30_000) document.body.dataset['waits'] = String((waits += 1));
        return original(...given);
      }) as typeof setTimeout;
    });
    for (let round = 1; round <= 2; round += 1) {
      await page.setInputFiles('#picture-file', SEVEN);
      await page.waitForFunction(() => document.querySelector('#picture-status')?.textContent === 'Looking …');
      await page.waitForFunction((waits) => document.body.dataset['waits'] === waits, String(round));
      await page.clock.fastForward(31_000);
      await page.waitForSelector('#picture-alert .alert');
      assert.match(
        (await alert(page, 'picture-alert').textContent()) ?? '',
        /did not answer within 30 s and was stopped/,
      );
    }
    await page.selectOption('#picture-module-choice', '0');
    await loaded(page);
    assert.equal((await classes(page))[0]?.label, '7');
  },
  '#pictures',
);

inPage('a revocation that the server tells of stops a module that ran before', async ({ page, context, errors }) => {
  await page.click('#tab-pictures');
  await loaded(page);
  const subject = /M[A-Z2-7]{55}/.exec((await page.textContent('#picture-module')) ?? '')?.[0] ?? '';
  const trust = JSON.parse(readFileSync(path.join(dist, 'trust.json'), 'utf8')) as object;
  const revoked = JSON.stringify({ ...trust, revoked: { subjects: [subject] } });
  await context.route('**/trust.json', (route) => route.fulfill({ contentType: 'application/json', body: revoked }));
  await page.reload();
  await page.waitForSelector('#picture-module .alert');
  assert.match(
    (await page.textContent('#picture-module .alert')) ?? '',
    new RegExp(`The actor ${subject} was revoked`),
  );
  // A trust file that cannot be read trusts nobody.
  await context.route('**/trust.json', (route) =>
    route.fulfill({ contentType: 'application/json', body: '{"revokd": {}}' }),
  );
  await page.reload();
  await page.waitForSelector('#picture-module .alert');
  assert.match((await page.textContent('#picture-module .alert')) ?? '', /`revokd` means nothing/);
  assert.deepEqual(errors, []);
});

inPage(
  'the camera takes pictures, and live ones until it is stopped',
  async ({ page }) => {
    await page.click('#tab-pictures');
    await loaded(page);
    await page.click('#camera');
    await page.waitForSelector('#camera-take:visible');
    await page.click('#camera-take');
    assert.equal((await classes(page)).length, 5);
    assert.equal(await page.isVisible('#video'), false);
    await page.click('#camera');
    await page.waitForSelector('#camera-live:visible');
    await page.click('#camera-live');
    const total = () => page.textContent('#phases tr:last-child td');
    const first = await total();
    await page.waitForFunction(
      (first) => document.querySelector('#phases tr:last-child td')?.textContent !== first,
      first,
    );
    assert.equal(await page.getAttribute('#picture-status', 'aria-live'), 'off');
    await page.click('#camera');
    assert.equal(await page.isVisible('#video'), false);
    assert.equal(await page.evaluate(() => document.querySelector('video')?.srcObject), null);
  },
  '#pictures',
  true,
);

inPage(
  'without a camera there is a sentence',
  async ({ page }) => {
    await page.evaluate(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'));
    });
    await page.click('#camera');
    await page.waitForSelector('#picture-alert .alert');
    assert.match((await alert(page, 'picture-alert').textContent()) ?? '', /No camera was found/);
  },
  '#pictures',
);

inPage(
  'a graph computes what its input says, and refuses other shapes',
  async ({ page }) => {
    await loaded(page, 'graph');
    assert.match((await page.textContent('#graph-hint')) ?? '', /image: float32 \[1, 1, 32, 32\]/);
    await page.click('#graph-run');
    await page.waitForSelector('#graph-output:visible');
    const result = JSON.parse((await page.textContent('#graph-output')) ?? '') as {
      shape: number[];
      'input-data': number[];
    };
    assert.deepEqual(result.shape, [1, 10]);
    assert.ok(result['input-data'].every(Number.isFinite));
    await page.fill('#graph-input', '[{"input-data": [1], "dim-size": 1, "shape": [1]}]');
    await page.click('#graph-run');
    await page.waitForSelector('#graph-alert .alert');
    assert.match(
      (await alert(page, 'graph-alert').textContent()) ?? '',
      /`image` is float32 \[1, 1, 32, 32\], not float32 \[1\]/,
    );
  },
  '#graphs',
);

inPage('without a network the page starts, computes and classifies', async ({ page, context, errors }) => {
  await page.waitForFunction(() => document.querySelector('#engine')?.textContent.includes('offline from now on'));
  await page.click('#operator-run');
  await page.waitForSelector('#operator-output:visible');
  await page.click('#tab-pictures');
  await loaded(page);
  await page.click('#samples button:nth-of-type(2)');
  await page.waitForSelector('#classes li');
  await context.setOffline(true);
  await page.goto(`${origin}#operators`);
  await page.reload();
  await page.waitForSelector('body[data-ready]');
  await page.click('#operator-run');
  await page.waitForSelector('#operator-output:visible');
  await page.click('#tab-pictures');
  await loaded(page);
  await page.setInputFiles('#picture-file', SEVEN);
  assert.equal((await classes(page))[0]?.label, '7');
  // What was never fetched is told to be missing.
  await page.click('#tab-graphs');
  await page.waitForSelector('#graph-module .alert');
  assert.match(
    (await page.textContent('#graph-module .alert')) ?? '',
    /server does not answer, and the module is not kept/,
  );
  errors.splice(0);
});

inPage(
  'nothing is asked of any other place than where the page came from',
  async ({ page, errors }) => {
    const asked: string[] = [];
    page.on('request', (request) => asked.push(new URL(request.url()).origin));
    await page.reload();
    await page.click('#tab-pictures');
    await loaded(page);
    await page.setInputFiles('#picture-file', SEVEN);
    await classes(page);
    assert.deepEqual([...new Set(asked.filter((other) => other !== 'null'))], [new URL(origin).origin]);
    const refused = await page.evaluate(() =>
      fetch('http://127.0.0.1:9/').then(
        () => '',
        (error: unknown) => String(error),
      ),
    );
    assert.match(refused, /Failed to fetch/);
    assert.ok(errors.splice(0).every((error) => error.includes('Content Security Policy')));
  },
  '#pictures',
);

test('photographs are named as graphlet classify names them', { timeout: 300_000 }, async (context) => {
  const module = path.join(web, 'public', 'models', 'mobilenet_v2', 'relaxed-simd.wasm');
  const images = path.join(shared, 'images');
  if (!browser || !existsSync(module) || !existsSync(images)) {
    context.skip(why || `${path.join(shared, 'models', 'mobilenet_v2.onnx')} or its module is not here`);
    return;
  }
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(`${origin}#pictures`);
  await page.selectOption('#picture-module-choice', { label: 'mobilenet_v2 1.0.0' });
  await page.waitForFunction(() => document.querySelector('#picture-module')?.textContent.includes('1000 labels'));
  for (const picture of readdirSync(images)) {
    await page.setInputFiles('#picture-file', path.join(images, picture));
    await page.waitForFunction(
      (name) => document.querySelector<HTMLImageElement>('#preview')?.alt.endsWith(name),
      picture,
    );
    assert.deepEqual(await classes(page), classified(module, path.join(images, picture)), picture);
  }
  await page.close();
});

/** A module without the bytes behind its last whole section. */
function trimmed(bytes: Buffer): Buffer {
  let at = 8;
  while (at < bytes.length) {
    let size = 0;
    let next = at + 1;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[next] ?? 0;
      next += 1;
      size += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    if (next + size > bytes.length) break;
    at = next + size;
  }
  return bytes.subarray(0, at);
}

/** A PNG file that says it has so many pixels; the rest is short. */
function png(width: number, height: number): Buffer {
  const chunk = (name: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(name, 'latin1'), data]);
    let crc = ~0;
    for (const byte of body) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeInt32BE(~crc, 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 0], 8);
  const start = Buffer.from(latin1('\x89PNG\r\n\x1a\n'));
  return Buffer.concat([
    start,
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(Buffer.alloc(1000))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}
