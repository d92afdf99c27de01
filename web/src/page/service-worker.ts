// Keeps the page and the modules that were used, so that it works without a network. Page and
// modules come from what is kept (a module's address changes with its contents); what is trusted
// and what there is are asked anew while there is a network, so that a revocation arrives.

/// <reference lib="webworker" />

/** The page's files and a digest of them all, which tools/build.mjs puts in. */
declare const SHELL: readonly string[];
declare const VERSION: string;

const worker = self as unknown as ServiceWorkerGlobalScope;
const PAGE = `graphlet-page-${VERSION}`;
const MODULES = 'graphlet-modules';
const ASKED_ANEW = ['catalogue.json', 'trust.json'];

worker.addEventListener('install', (event) => {
  event.waitUntil(
    caches
      .open(PAGE)
      // Not from the browser's own cache, which may hold files of another version.
      .then((cache) => cache.addAll([...SHELL, ...ASKED_ANEW].map((url) => new Request(url, { cache: 'reload' }))))
      .then(() => worker.skipWaiting()),
  );
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith('graphlet-page-') && name !== PAGE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== 'GET' || url.origin !== location.origin) return;
  const scope = new URL(worker.registration.scope).pathname;
  const path = url.pathname.slice(scope.length);
  if (ASKED_ANEW.includes(path)) event.respondWith(networkFirst(event.request));
  else if (path.startsWith('models/')) event.respondWith(keptModule(event.request, url));
  else event.respondWith(kept(event.request));
});

async function kept(request: Request): Promise<Response> {
  const cache = await caches.open(PAGE);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}

async function networkFirst(request: Request): Promise<Response> {
  const cache = await caches.open(PAGE);
  try {
    const response = await fetch(request, { cache: 'no-store' });
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const found = await cache.match(request);
    if (found) return found;
    throw error;
  }
}

/** A module or a sample: its address names its contents, so what is kept is right for ever. */
async function keptModule(request: Request, url: URL): Promise<Response> {
  const cache = await caches.open(MODULES);
  const found = await cache.match(request);
  if (found) return found;
  const response = await fetch(request);
  if (response.ok && url.searchParams.has('v')) {
    const copy = response.clone();
    // Older contents of the same file make room.
    for (const old of await cache.keys()) if (new URL(old.url).pathname === url.pathname) await cache.delete(old);
    await cache.put(request, copy).catch(() => undefined);
  }
  return response;
}
