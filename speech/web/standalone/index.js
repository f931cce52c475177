// The exported page: the element, and a service worker that keeps all files, so that the page works
// without a connection from the second visit on.
import "./speech-commands.js";

const element = document.querySelector("speech-commands");
const note = document.querySelector("#offline");

// later, so that the files that the page waits for come first
element.addEventListener("speech-ready", async () => {
  if (element.dataset.state !== "ready" || !navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
    note.textContent = "This page now works without a connection, too.";
  } catch {
    // a private window, or a browser that was told to keep nothing: the page works all the same
  }
});
