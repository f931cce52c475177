// Keeps the files of the exported page, whole and of one version, and answers with them.
const FILES = {}; // path: its digest, as fetch() checks it; the exporter fills it in
const CACHE = "speech-commands-VERSION";

addEventListener("install", (event) => event.waitUntil(keep().then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(forget().then(() => clients.claim())));

async function keep() {
  const cache = await caches.open(CACHE);
  // "no-cache" asks whether what the browser has is still right; a mixture of versions fails here,
  // and the next visit tries again
  const one = async ([path, integrity]) => {
    const response = await fetch(path, { integrity, cache: "no-cache" });
    if (!response.ok) throw new Error(`${path}: status ${response.status}`);
    await cache.put(path, response);
  };
  await Promise.all(Object.entries(FILES).map(one));
}

async function forget() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("speech-commands-") && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
}

addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const scope = new URL("./", location);
  if (request.method !== "GET" || origin !== scope.origin) return;
  const path = pathname === scope.pathname ? "index.html" : pathname.slice(scope.pathname.length);
  if (pathname.startsWith(scope.pathname) && path in FILES) event.respondWith(answer(path, request));
});

async function answer(path, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(path)) ?? fetch(request);
}
