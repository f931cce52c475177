// A model that listens in the browser, without a server:
//
//   <speech-commands src="model.onnx"></speech-commands>     the whole page of speech app's Live tab
//   const listener = await listen({ src, onDetection });     nothing to be seen, for a page of yours
//
// docs/web-export.md has all of it. The model runs in a worker; no sound leaves the page.
import "./model.js";
import "./source.js";
import "./rolling.js";
import "./history.js";
import "./live.js";

const CHUNK = 0.1; // seconds of sound in a piece
const BEHIND = 1; // seconds that may wait; beyond it all that waits is dropped
const home = (path) => new URL(path, import.meta.url);

// what the parts that are speech app's own take from its server
window.speechUrl = home;
window.speechWorklet = home("worklet.js");
window.speechPrivacy = "The sound stays in this page, which sends none of it anywhere.";

// A worker with one model, and the requests that it has not answered yet.
class Model {
  constructor(src) {
    this.worker = new Worker(home("worker.js"), { type: "module" });
    this.waiting = new Map();
    this.worker.onmessage = ({ data: { number, answer, error } }) => {
      const { resolve, reject } = this.waiting.get(number);
      this.waiting.delete(number);
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    };
    this.worker.onerror = () => {
      const error = new Error(
        "The model's worker does not start: either a file of this page is missing or damaged, or " +
          "the browser is older than Chrome or Edge 92, Firefox 114, Safari 16.4.",
      );
      for (const { reject } of this.waiting.values()) reject(error);
    };
    this.count = 0;
    this.settings = this.ask("open", { src: src.href });
  }

  // the model at an address, opened once
  static async open(src) {
    const address = new URL(src, document.baseURI);
    const model = this.opened.get(address.href) ?? new this(address);
    this.opened.set(address.href, model);
    try {
      await model.settings;
    } catch (error) {
      this.opened.delete(address.href);
      model.worker.terminate();
      throw error;
    }
    return model;
  }

  ask(name, content) {
    const number = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ number, name, ...content });
    });
  }

  // answers in place of the server of speech app: begin, push, end
  answer(path, content) {
    const [, key, end] = path.split("?")[0].split("/");
    if (end) return this.ask("end", { key });
    if (!key) return this.ask("begin", { settings: content });
    const query = new URLSearchParams(path.split("?")[1]);
    const pcm = new Int16Array(content.reduce((sum, piece) => sum + piece.length, 0));
    let filled = 0;
    for (const piece of content) {
      pcm.set(piece, filled);
      filled += piece.length;
    }
    const [rate, lost] = [Number(query.get("rate")), Number(query.get("lost"))];
    return this.ask("push", { key, pcm, rate, lost });
  }
}
Model.opened = new Map();

// Listen to the microphone. Resolves when it does, to { settings, stop() }; rejects with an error
// whose message is a sentence for the user.
//   src          the model's file, as the page's address has it (model.onnx)
//   sensitivity  low, medium or high; or threshold, a probability for all commands
//   smoothing    seconds of the moving mean
//   onDetection  called with { label, probability, start, time }, times in seconds of the stream
//   onStep       called ten times a second with { time, peak, hint, probabilities }
//   onNear       called with { label, probability, threshold, time }, a command that almost was one
//   onEnd        called with a sentence where the microphone goes away, or the model fails
export async function listen(options = {}) {
  const { src = "model.onnx", sensitivity, threshold, smoothing } = options;
  const tell = {
    detection: options.onDetection,
    step: options.onStep,
    near: options.onNear,
  };
  const model = await Model.open(src);
  const { key, ...settings } = await model.ask("begin", {
    settings: { sensitivity, threshold, smoothing },
  });
  const receive = ({ messages }) => {
    for (const { type, ...message } of messages) tell[type]?.(message);
  };
  const microphone = await window.SpeechMicrophone.open(false);
  let waiting = 0; // seconds
  let lost = 0;
  let ended;
  const stop = () => {
    microphone.close();
    ended ??= model.ask("end", { key }).then(receive);
    return ended;
  };
  const take = async (pcm) => {
    if (waiting > BEHIND) {
      lost += CHUNK;
      return;
    }
    waiting += CHUNK;
    const asked = model.ask("push", { key, pcm, rate: microphone.rate, lost });
    lost = 0;
    const answer = await asked.catch((error) => {
      microphone.close();
      options.onEnd?.(error.message);
      return { messages: [] };
    });
    waiting -= CHUNK;
    receive(answer);
  };
  await microphone.record(CHUNK, take, async (sentence) => {
    await stop();
    options.onEnd?.(sentence);
  });
  return { settings, stop };
}

// The page of the Live tab, with the model of its attribute src; its detections are events
// "speech-detection", whose detail is as of onDetection. One in a page.
class SpeechCommands extends HTMLElement {
  async connectedCallback() {
    if (this.shown) return;
    this.shown = true;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => {
      this.classList.toggle("dark", dark.matches);
      this.querySelector("speech-live")?.draw();
    };
    dark.addEventListener("change", follow);
    follow();
    try {
      const src = this.getAttribute("src") ?? "model.onnx";
      const [model, page] = await Promise.all([Model.open(src), text("live.html")]);
      window.speechAsk = (path, content) => model.answer(path, content);
      window.speechPages = { live: page };
      this.show({ model: this.getAttribute("name") ?? src, ...(await model.settings) });
      this.dataset.state = "ready";
    } catch (error) {
      const sentence = document.createElement("p");
      sentence.className = "error";
      sentence.setAttribute("role", "alert");
      sentence.textContent = error.message;
      this.replaceChildren(sentence);
      this.dataset.state = "failed";
    }
    this.dispatchEvent(new CustomEvent("speech-ready", { bubbles: true }));
  }

  show(settings) {
    const model = document.createElement("speech-model");
    model.dataset.speechModel = encodeURIComponent(JSON.stringify(settings));
    const live = document.createElement("speech-live");
    this.replaceChildren(model, live);
  }
}

async function text(path) {
  const response = await fetch(home(path));
  if (!response.ok) throw new Error(`expected the file ${path}, got status ${response.status}; ` +
    "export the page again");
  return response.text();
}

customElements.define("speech-commands", SpeechCommands);
