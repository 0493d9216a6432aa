// Keeps the page's files on the device, so that it opens without a network. Rows are not here but in the database.

/** Made of the content of all files, by the build. */
declare const BUILD: string;
/** Files of the build, relative to this one. */
declare const FILES: readonly string[];

const worker = self as unknown as ServiceWorkerGlobalScope;
const CACHE = `kairos-mirror-${BUILD}`;
/** How long the network may take before the page is shown as it was. */
const PATIENCE_MS = 3000;

worker.addEventListener('install', (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(['./', ...FILES]);
      await worker.skipWaiting();
    })(),
  );
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((name) => name.startsWith('kairos-mirror-') && name !== CACHE);
      await Promise.all(old.map((name) => caches.delete(name)));
      await worker.clients.claim();
    })(),
  );
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const isOwn = request.method === 'GET' && request.url.startsWith(worker.registration.scope);
  if (isOwn) event.respondWith(request.mode === 'navigate' ? page(request) : file(request));
});

/** The newest page, or the one that is here. */
async function page(request: Request): Promise<Response> {
  try {
    return await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    return (await caches.match('./')) ?? Response.error();
  }
}

/** What is in the cache never changes: its name has the build in it. */
async function file(request: Request): Promise<Response> {
  return (await caches.match(request)) ?? fetch(request);
}
